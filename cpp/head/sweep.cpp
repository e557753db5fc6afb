#include "head/sweep.h"

#include <algorithm>

namespace lossk {
namespace {

constexpr int64_t kShare = 384;  // rows that may go to another worker: whole row blocks, and a sketch's blocks too

}  // namespace

template <class T>
Sweep<T>::Sweep(const Head<T>& h, int64_t max_rows, int64_t max_segments)
    : head_(h),
      products_(h.products),
      block_stride_(round_up(max_rows, h.products.mr) * kSegment),
      gathered_(h.op, h.gather_bytes(max_rows)),
      rows_(h.op, h.products.bytes(max_rows, h.products.mr, h.dim)),
      rows_t_(h.op, max_segments > 0 ? h.products.bytes(h.dim, h.products.nr, round_up(max_rows, h.products.mr)) : 0),
      block_(h.op, block_stride_ * max_segments * sizeof(T)),
      sums_(h.op, max_segments * max_rows * sizeof(GradSums<T>)),
      weight_(
          h.op,
          std::max(h.products.bytes(kSegment, h.products.nr, h.dim), h.products.bytes(h.dim, h.products.nr, kSegment)),
          workers_),
      g_t_(
          h.op, max_segments > 0 ? h.products.bytes(kSegment, h.products.mr, round_up(max_rows, h.products.mr)) : 0,
          workers_),
      tile_(h.op, kRowBlock * kSegment * sizeof(T), workers_) {}

template <class T>
void Sweep<T>::take_rows(int64_t begin, int64_t count) {
  begin_ = begin, count_ = count;
  row_steps_ = products_.steps(round_up(count, products_.mr));
  source_ = head_.gather(begin, count, gathered_.template get<char>());
  head_.pack_input(source_, count, rows_.template get<char>());
  has_rows_t_ = false;
}

// Raw logits of rows [r0, r1) of the chunk, r0 at a panel's start -> out [r1 - r0, kSegment].
template <class T>
void Sweep<T>::logits(int64_t r0, int64_t r1, int64_t columns, const char* weight_panels, T* out) const {
  const int64_t steps = products_.steps(head_.dim), whole = round_up(columns, products_.nr);
  const char* a = rows_.template get<char>() + r0 * steps * products_.element_bytes;
  products_.gemm(r1 - r0, whole, steps, a, weight_panels, out, kSegment, false);
}

template <class T>
const T* Sweep<T>::make(int64_t worker, int64_t segment, int64_t r0, int64_t r1) const {
  T* tile = tile_.template get<T>(worker);
  const int64_t columns = std::min(kSegment, head_.vocab - segment * kSegment);
  logits(r0, r1, columns, weight_.template get<char>(worker), tile);
  return tile;
}

template <class T>
void Sweep<T>::visit(Visitor<T>& visitor, bool keep) {
  // Where there are fewer segments than workers, their rows are shared too.
  const int64_t share = round_up(ceil_div(count_, ceil_div(workers_, std::max<int64_t>(1, head_.segments()))), kShare);
  const int64_t shares = ceil_div(count_, std::max<int64_t>(1, share));
  parallel_items(head_.segments() * shares, workers_, [&](int64_t worker, int64_t item) {
    const int64_t s = item / shares, begin = item % shares * share, end = std::min(begin + share, count_);
    Segment<T> segment;
    head_.load(s, segment);
    open(worker, s);
    visitor.open(worker, s);
    for (int64_t r0 = begin; r0 < end; r0 += kRowBlock) {
      const int64_t r1 = std::min(r0 + kRowBlock, end);
      T* raw = keep ? block_.template get<T>() + s * block_stride_ + r0 * kSegment : tile_.template get<T>(worker);
      logits(r0, r1, segment.count, weight_.template get<char>(worker), raw);
      visitor.rows(worker, r0, r1);
      for (int64_t r = r0; r < r1; ++r) visitor.row(worker, s, segment, r, raw + (r - r0) * kSegment);
    }
  });
}

namespace {

// Statistics of the rows begin + r, and the sketch of their blocks.
template <class T>
struct StatsVisitor final : Visitor<T> {
  const Head<T>& head;
  const int64_t begin, count;
  const bool full;
  RowState<T>* states;  // [segments, count]
  T* picked;            // [N, K]
  const Sketch* sketch;
  Scratch mass;  // for each worker the weights of a row, and the mass of the block it is in

  StatsVisitor(const Head<T>& h, int64_t b, int64_t c, bool f, RowState<T>* s, T* p, const Sketch* k, int64_t workers)
      : head(h), begin(b), count(c), full(f), states(s), picked(p), sketch(k), mass(h.op, 2 * kBytes, workers) {
    for (int64_t w = 0; w < workers; ++w) std::fill_n(mass.get<T>(w), 2 * kSegment, T(0));
  }

  void row(int64_t worker, int64_t s, const Segment<T>& segment, int64_t r, const T* raw) override {
    const int64_t row = head.rows[begin + r];
    RowState<T>& state = states[s * count + r];
    T *weights = mass.template get<T>(worker), *block = weights + kSegment;
    (full ? head.epilogue.stats_full : head.epilogue.stats_lse)(
        segment, raw, head.terms(row), head.index(row), picked + row * head.picks, state, sketch ? weights : nullptr);
    if (sketch == nullptr) return;
    // Trap: relative to an estimate far below the segment's own maximum, exp would overflow.
    const T beside = std::min(state.max - T(sketch->reference[r]), T(0));
    if (state.sum > 0) head.epilogue.add(std::exp(beside), weights, block);
    if ((r + 1) % Sketch::kRows != 0 && r + 1 < count) return;
    c10::BFloat16* out = sketch->data + (begin + r) / Sketch::kRows * head.vocab + segment.first;
    for (int64_t v = 0; v < segment.count; ++v) out[v] = float(block[v]);
    std::fill_n(block, kSegment, T(0));
  }

 private:
  static constexpr int64_t kBytes = kSegment * sizeof(T);
};

}  // namespace

template <class T>
void Sweep<T>::stats(bool full, bool keep, RowState<double>* merged, T* picked, const Sketch* sketch) {
  const Scratch memory(head_.op, head_.segments() * count_ * sizeof(RowState<T>));
  auto* states = memory.get<RowState<T>>();
  StatsVisitor<T> visitor(head_, begin_, count_, full, states, picked, sketch, workers_);
  visit(visitor, keep);
  parallel_ranges(count_, [&](int64_t r0, int64_t r1) {
    for (int64_t r = r0; r < r1; ++r) {
      RowState<double> state;
      for (int64_t s = 0; s < head_.segments(); ++s) state.merge(states[s * count_ + r]);
      merged[r] = state;
    }
  });
  if (sketch != nullptr) correct(*sketch, states, merged);
}

template <class T>
void Sweep<T>::correct(const Sketch& sketch, const RowState<T>* states, const RowState<double>* merged) const {
  parallel_ranges(ceil_div(count_, Sketch::kRows), [&](int64_t b0, int64_t b1) {
    for (int64_t b = b0; b < b1; ++b) {
      const int64_t r0 = b * Sketch::kRows, r1 = std::min(r0 + Sketch::kRows, count_);
      T lse[Sketch::kRows];
      for (int64_t r = r0; r < r1; ++r) lse[r - r0] = T(merged[r].lse());
      for (int64_t s = 0; s < head_.segments(); ++s) {
        const int64_t columns = std::min(kSegment, head_.vocab - s * kSegment);
        c10::BFloat16* out = sketch.data + (begin_ / Sketch::kRows + b) * head_.vocab + s * kSegment;
        double made = 0, right = 0;
        for (int64_t v = 0; v < columns; ++v) made += float(out[v]);
        for (int64_t r = r0; r < r1; ++r) {
          const RowState<T>& state = states[s * count_ + r];
          if (state.sum > 0) right += state.sum * std::exp(state.max - lse[r - r0]);
        }
        const float factor = made > 0 ? float(right / made) : 0.0f;
        for (int64_t v = 0; v < columns; ++v) out[v] = float(out[v]) * factor;
      }
    }
  });
}

template <class T>
void Sweep<T>::grads(int64_t s0, int64_t s1, bool kept, Gradient<T>& gradient, const GradSinks<T>& out) {
  const int64_t mr = products_.mr, dim = head_.dim, bytes = products_.element_bytes;
  const int64_t segment_steps = products_.steps(kSegment);
  if (out.weight != nullptr && !has_rows_t_) {
    head_.pack_input_t(source_, count_, row_steps_, rows_t_.template get<char>());
    has_rows_t_ = true;
  }
  auto* sums = sums_.template get<GradSums<T>>();
  parallel_items(s1 - s0, workers_, [&](int64_t worker, int64_t i) {
    auto *weight = weight_.template get<char>(worker), *g_t = g_t_.template get<char>(worker);
    T *block = block_.template get<T>() + i * block_stride_, *tile = tile_.template get<T>(worker);
    Segment<T> segment;
    head_.load(s0 + i, segment);
    segment.row_sums = out.sums != nullptr;
    if (!kept) head_.pack_weight(s0 + i, weight);
    gradient.open(worker, s0 + i);
    alignas(64) T g[Products<T>::max_mr * kSegment], bias[kSegment] = {};
    for (int64_t r0 = 0; r0 < count_; r0 += mr) {
      // The panels that replace kept logits are no larger than they, so writing one never reaches rows unread.
      const T* raw = kept ? block + r0 * kSegment : tile + r0 % kRowBlock * kSegment;
      if (r0 % kRowBlock == 0) {
        const int64_t r1 = std::min(r0 + kRowBlock, count_);
        if (!kept) logits(r0, r1, segment.count, weight, tile);  // which stays in L2
        gradient.rows(worker, r0, r1);
      }
      for (int64_t r = r0; r < r0 + mr; ++r) {
        T* g_row = g + (r - r0) * kSegment;
        if (r >= count_) {
          std::fill(g_row, g_row + kSegment, T(0));
          continue;
        }
        sums[i * count_ + r] = gradient.row(worker, segment, r, raw + (r - r0) * kSegment, g_row);
        if (out.bias != nullptr) head_.epilogue.add(1, g_row, bias);
      }
      if (out.input != nullptr)
        products_.pack_grad(
            {g, kSegment, 1, mr, kSegment, mr, segment_steps, 0},
            reinterpret_cast<char*>(block) + r0 * segment_steps * bytes);
      if (out.weight != nullptr)
        products_.pack_grad(
            {g, 1, kSegment, kSegment, mr, mr, products_.steps(mr), row_steps_ * mr},
            g_t + products_.steps(r0) * mr * bytes);
    }
    if (out.weight != nullptr)
      products_.gemm(
          segment.count, dim, row_steps_, g_t, rows_t_.template get<char>(), out.weight + i * kSegment * dim, dim,
          !out.fresh);
    for (int64_t v = 0; out.bias != nullptr && v < segment.count; ++v) out.bias[segment.first + v] += bias[v];
  });
  if (out.sums != nullptr)
    parallel_ranges(count_, [&](int64_t r0, int64_t r1) {
      for (int64_t i = 0; i < s1 - s0; ++i)
        for (int64_t r = r0; r < r1; ++r) out.sums[r].add(sums[i * count_ + r]);
    });
  if (out.input != nullptr) input_grads(s0, s1, out.input);
}

template <class T>
void Sweep<T>::input_grads(int64_t s0, int64_t s1, T* grad_input) const {
  // One share of the columns for each worker: each reads all of g, so more shares would only read it more often.
  const int64_t dim = head_.dim;
  parallel_shares(dim, products_.nr, workers_, [&](int64_t worker, int64_t d0, int64_t d1) {
    auto* weight = weight_.template get<char>(worker);
    for (int64_t s = s0; s < s1; ++s) {
      head_.pack_weight_t(s, d0, d1, weight);
      products_.gemm(
          count_, d1 - d0, products_.steps(kSegment), block_.template get<T>() + (s - s0) * block_stride_, weight,
          grad_input + d0, dim, true);
    }
  });
}

template class Sweep<float>;
template class Sweep<double>;

}  // namespace lossk
