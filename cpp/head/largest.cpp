// linear_topk and linear_sample on the CPU, schemas in ops.cpp: the largest logits, as they are or with noise.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <tuple>

#include "common/random.h"
#include "head/grad_outputs.h"
#include "head/sweep.h"

namespace lossk {
namespace {

template <class T>
struct Entry {
  T value;
  int64_t column;
  // Largest first, nan before all, of equal ones the first column: as torch.topk.
  bool operator<(const Entry& b) const {
    const bool nan = value != value, b_nan = b.value != b.value;
    if (nan != b_nan) return nan;
    return value == b.value || nan ? column < b.column : value > b.value;
  }
};

// Each worker keeps what it has seen of a row; their order does not matter in the end.
template <class T>
struct TopkVisitor final : Visitor<T> {
  struct Found {
    int64_t count = 0;
    T least = -INFINITY;  // of k that were found: what is not above it does not count
  };

  const Head<T>& head;
  const int64_t begin, count, k, room;  // room for each row
  RowState<T>* states;                  // [segments, count]
  Entry<T>* entries;                    // [workers, count, room]
  std::vector<Found> found;             // [workers, count]

  TopkVisitor(const Head<T>& h, int64_t b, int64_t c, int64_t kk, int64_t r, RowState<T>* s, Entry<T>* e)
      : head(h), begin(b), count(c), k(kk), room(r), states(s), entries(e), found(workers() * c) {}

  void row(int64_t worker, int64_t s, const Segment<T>& segment, int64_t r, const T* raw) override {
    const int64_t row = head.rows[begin + r], place = worker * count + r;
    alignas(64) T z[kSegment];
    head.epilogue.stats_lse(segment, raw, head.scale(row), nullptr, nullptr, states[s * count + r], nullptr);
    head.epilogue.logits(segment, raw, head.scale(row), z);
    Found& f = found[place];
    Entry<T>* own = entries + place * room;
    for (int64_t v = 0; v < segment.count; ++v) {
      if (z[v] < f.least || (z[v] == f.least && f.count >= k)) continue;
      own[f.count++] = {z[v], segment.first + v};
      if (f.count == room) keep_best(f, own);
    }
  }

  void keep_best(Found& f, Entry<T>* own) const {
    if (f.count <= k) return;
    std::nth_element(own, own + k - 1, own + f.count);
    f.count = k, f.least = own[k - 1].value;
  }
};

constexpr int64_t kEntryBytes = 64 << 20;

template <class T>
std::tuple<Tensor, Tensor, Tensor> topk_of(const HeadArgs& args, int64_t k) {
  const Head<T> head(args);
  const int64_t n = head.total, active = head.rows.size();
  check(k >= 1 && k <= 128 && k <= head.vocab, args.op, ": k must be in [1, min(128, V = ", head.vocab, ")], got ", k);
  Tensor values = zeros(args.op, args.input, {n, k}, scalar_type_of<T>);
  Tensor indices = empty(args.op, args.input, {n, k}, ScalarType::Long);
  Tensor lse = zeros(args.op, args.input, {n}, scalar_type_of<T>);
  std::fill_n(data<int64_t>(indices), n * k, int64_t(-1));
  const int64_t room = 2 * k + 64, row_bytes = room * int64_t(sizeof(Entry<T>)) * workers();
  const int64_t chunk = std::clamp<int64_t>(kEntryBytes / row_bytes, 1, rows_per_chunk(head, active));
  Sweep<T> sweep(head, chunk, 0);
  const Scratch entries(args.op, chunk * row_bytes), memory(args.op, head.segments() * chunk * sizeof(RowState<T>));
  for (int64_t begin = 0; begin < active; begin += chunk) {
    const int64_t count = std::min(chunk, active - begin);
    sweep.take_rows(begin, count);
    auto* states = memory.get<RowState<T>>();
    TopkVisitor<T> visitor(head, begin, count, k, room, states, entries.get<Entry<T>>());
    sweep.visit(visitor);
    parallel_ranges(count, [&](int64_t r0, int64_t r1) {
      std::vector<Entry<T>> all;
      for (int64_t r = r0; r < r1; ++r) {
        const int64_t row = head.rows[begin + r];
        all.clear();
        for (int64_t place = r; place < int64_t(visitor.found.size()); place += count) {
          const Entry<T>* own = visitor.entries + place * room;
          all.insert(all.end(), own, own + visitor.found[place].count);
        }
        std::partial_sort(all.begin(), all.begin() + k, all.end());
        for (int64_t i = 0; i < k; ++i) {
          data<T>(values)[row * k + i] = all[i].value;
          data<int64_t>(indices)[row * k + i] = all[i].column;
        }
        RowState<double> state;
        for (int64_t s = 0; s < head.segments(); ++s) state.merge(states[s * count + r]);
        data<T>(lse)[row] = T(state.lse());
      }
    });
  }
  return {values, indices, lse};
}

// Gumbel's trick: the largest of z + noise. In place of a logarithm for each logit, most of which lose, the exponential
// variable behind the noise is compared with exp(z - best): it is at least the uniform one that it is made of.
template <class T>
struct SampleVisitor final : Visitor<T> {
  struct Best {
    T value = -INFINITY, z = -INFINITY;
    int64_t column = 0;
  };

  const Head<T>& head;
  const int64_t begin, count;
  const uint64_t seed;
  RowState<T>* states;     // [segments, count]
  std::vector<Best> best;  // [workers, count]

  SampleVisitor(const Head<T>& h, int64_t b, int64_t c, uint64_t seed_, RowState<T>* s)
      : head(h), begin(b), count(c), seed(seed_), states(s), best(workers() * c) {}

  void row(int64_t worker, int64_t s, const Segment<T>& segment, int64_t r, const T* raw) override {
    const int64_t row = head.rows[begin + r];
    alignas(64) T z[kSegment], weights[kSegment];
    RowState<T>& state = states[s * count + r];
    head.epilogue.stats_lse(segment, raw, head.scale(row), nullptr, nullptr, state, weights);
    if (state.sum == 0) return;
    head.epilogue.logits(segment, raw, head.scale(row), z);
    Best& b = best[worker * count + r];
    T factor = kSlack * std::exp(state.max - b.value);
    for (int64_t v = 0; v < segment.count; v += 4) {
      const Random4 bits = philox(seed, uint64_t(segment.first + v) / 4, uint64_t(row));
      for (int64_t i = 0; i < 4 && v + i < segment.count; ++i) {
        const T most = factor * weights[v + i];
        if (bits.x[i] < 0x80000000u ? most < T(0.69) : T(~bits.x[i]) * T(2.3283064365386963e-10) > most) continue;
        const T value = z[v + i] + T(gumbel(bits.x[i]));
        if (!(value > b.value)) continue;
        b = {value, z[v + i], segment.first + v + i};
        factor = kSlack * std::exp(state.max - b.value);
      }
    }
  }

 private:
  static constexpr T kSlack = T(1.001);
};

template <class T>
std::tuple<Tensor, Tensor> sample_of(const HeadArgs& args, int64_t seed) {
  const Head<T> head(args);
  const int64_t n = head.total;
  check(head.vocab > 0 || n == 0, args.op, ": linear_weight must have rows, got none");
  Tensor token = zeros(args.op, args.input, {n}, ScalarType::Long);
  Tensor logp = zeros(args.op, args.input, {n}, scalar_type_of<T>);
  const int64_t chunk = rows_per_chunk(head, n);
  Sweep<T> sweep(head, chunk, 0);
  const Scratch memory(args.op, head.segments() * chunk * sizeof(RowState<T>));
  for (int64_t begin = 0; begin < n; begin += chunk) {
    const int64_t count = std::min(chunk, n - begin);
    sweep.take_rows(begin, count);
    auto* states = memory.get<RowState<T>>();
    SampleVisitor<T> visitor(head, begin, count, uint64_t(seed), states);
    sweep.visit(visitor);
    for (int64_t r = 0; r < count; ++r) {
      RowState<double> state;
      for (int64_t s = 0; s < head.segments(); ++s) state.merge(states[s * count + r]);
      auto best = visitor.best[r];
      for (int64_t place = r + count; place < int64_t(visitor.best.size()); place += count) {
        const auto& b = visitor.best[place];
        if (b.value > best.value || (b.value == best.value && b.column < best.column)) best = b;
      }
      data<int64_t>(token)[begin + r] = best.column;
      data<T>(logp)[begin + r] = T(best.z - state.lse());
    }
  }
  return {token, logp};
}

std::tuple<Tensor, Tensor, Tensor> linear_topk(
    const Tensor& input, const Tensor& linear_weight, const std::optional<Tensor>& linear_bias,
    const std::optional<Tensor>& scale, const std::optional<Tensor>& active, double softcap, int64_t k) {
  const HeadArgs args{"linear_topk", input, linear_weight, linear_bias, scale, kAbsent, kAbsent, active, softcap, 0};
  return input.scalar_type() == ScalarType::Double ? topk_of<double>(args, k) : topk_of<float>(args, k);
}

std::tuple<Tensor, Tensor> linear_sample(
    const Tensor& input, const Tensor& linear_weight, const std::optional<Tensor>& linear_bias,
    const std::optional<Tensor>& scale, double softcap, const Tensor& seed) {
  const HeadArgs args{"linear_sample", input, linear_weight, linear_bias, scale, kAbsent, kAbsent, kAbsent, softcap, 0};
  check_tensor(args.op, "seed", seed, {1}, ScalarType::Long);
  const int64_t value = *data<int64_t>(seed);
  return input.scalar_type() == ScalarType::Double ? sample_of<double>(args, value) : sample_of<float>(args, value);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lossk, CPU, m) {
  m.impl("linear_topk", TORCH_BOX(&linear_topk));
  m.impl("linear_sample", TORCH_BOX(&linear_sample));
}

}  // namespace lossk
