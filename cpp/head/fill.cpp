#include "head/fill.h"

#include <algorithm>

#include "common/parallel.h"

namespace lossk {

template <class T>
Fill<T>::Fill(const Head<T>& head, const LiveColumns<T>& live, bool blocks, bool dense)
    : head_(head),
      live_(live),
      blocks_(blocks),
      dense_(dense),
      terms_((blocks ? live.blocks() : 0) + dense),
      sums_(head.op, terms_ * head.dim * sizeof(T)),
      panels_(head.op, head.products.bytes(head.dim, head.products.nr, terms_)),
      total_(terms_) {}

template <class T>
void Fill<T>::weights(int64_t segment, T* q) const {
  for (int64_t b = 0; blocks_ && b < live_.blocks(); ++b, q += kSegment) {
    live_.dead(b, segment, q);
    const T share = live_.dead_mass(b) > 0 ? T(1 / live_.dead_mass(b)) : T(0);
    for (int64_t v = 0; v < kSegment; ++v) q[v] *= share;
    for (int64_t v = 0; head_.distance == Distance::cosine && v < kSegment; ++v)  // as a cosine's g has it
      q[v] *= segment * kSegment + v < head_.vocab ? head_.column(segment * kSegment + v) : T(0);
  }
  for (int64_t v = 0; dense_ && v < kSegment; ++v)
    q[v] = segment * kSegment + v < head_.vocab ? head_.aux(segment * kSegment + v) : T(0);
}

// body(first active row, count, its block, rows widened [count, D]) for every block.
template <class T>
template <class Body>
void Fill<T>::for_rows(const Body& body) const {
  const int64_t most = workers();
  const Scratch input(head_.op, Sketch::kRows * head_.dim * sizeof(T), most);
  parallel_items(live_.blocks(), most, [&](int64_t worker, int64_t b) {
    const int64_t first = live_.begin(b), count = live_.end(b) - first;
    head_.widen(first, count, input.get<T>(worker));
    body(first, count, b, input.get<T>(worker));
  });
}

template <class T>
void Fill<T>::set_rows(const T* missing, const T* dense) {
  missing_ = missing, dense_rows_ = dense;
  if (terms_ == 0) return;
  const int64_t dim = head_.dim, blocks = live_.blocks();
  const Scratch parts(head_.op, dense_ ? blocks * dim * sizeof(T) : 0);  // the dense term's, by block
  std::vector<T> part_totals(blocks);
  std::fill_n(sums_.get<T>(), terms_ * dim, T(0));
  const auto weigh = [&](const T* c, int64_t first, int64_t count, const T* input, T* sum, T& total) {
    for (int64_t i = 0; i < count; ++i) {
      const T by = c[first + i] * head_.scale(head_.rows[first + i]);
      total += by;
      for (int64_t d = 0; d < dim; ++d) sum[d] += by * input[i * dim + d];
    }
  };
  for_rows([&](int64_t first, int64_t count, int64_t b, const T* input) {
    if (blocks_) weigh(missing, first, count, input, sums_.get<T>() + b * dim, total_[b]);
    if (!dense_) return;
    T* part = parts.get<T>() + b * dim;
    std::fill_n(part, dim, T(0));
    weigh(dense, first, count, input, part, part_totals[b]);
  });
  for (int64_t b = 0; dense_ && b < blocks; ++b) {
    total_[terms_ - 1] += part_totals[b];
    for (int64_t d = 0; d < dim; ++d) sums_.get<T>()[(terms_ - 1) * dim + d] += parts.get<T>()[b * dim + d];
  }
  const auto& p = head_.products;
  p.pack_grad(
      {sums_.get<T>(), 1, dim, dim, terms_, p.nr, p.steps(terms_), p.steps(terms_) * p.nr}, panels_.get<char>());
}

template <class T>
void Fill<T>::add_input(T* grad_input, GradSums<T>* sums) const {
  if (terms_ == 0) return;
  const auto& p = head_.products;
  const int64_t dim = head_.dim, steps = p.steps(kSegment), most = workers();
  const bool distance = head_.distance != Distance::none;
  // mixed [terms, D] = q weight, and q bias: segments in order, one owner for each column of D
  const Scratch mixed(head_.op, terms_ * dim * sizeof(T)), q(head_.op, q_bytes(), most);
  const Scratch q_panels(head_.op, p.bytes(terms_, p.mr, kSegment), most);
  const Scratch weight(head_.op, p.bytes(dim, p.nr, kSegment), most);
  std::vector<T> bias(terms_);
  std::fill_n(mixed.get<T>(), terms_ * dim, T(0));
  parallel_shares(dim, p.nr, most, [&](int64_t worker, int64_t d0, int64_t d1) {
    T* of = q.get<T>(worker);
    for (int64_t s = 0; s < head_.segments(); ++s) {
      weights(s, of);
      p.pack_grad({of, kSegment, 1, terms_, kSegment, p.mr, steps, steps * p.mr}, q_panels.get<char>(worker));
      head_.pack_weight_t(s, d0, d1, weight.get<char>(worker));
      p.gemm(
          terms_, d1 - d0, steps, q_panels.get<char>(worker), weight.get<char>(worker), mixed.get<T>() + d0, dim, true);
      if (d0 != 0 || sums == nullptr) continue;
      Segment<T> segment;
      head_.load(s, segment);
      for (int64_t t = 0; t < terms_; ++t)
        for (int64_t v = 0; v < segment.count; ++v)
          bias[t] += of[t * kSegment + v] * (distance ? T(1) : segment.bias[v]);  // of a distance the sum of g
    }
  });
  for_rows([&](int64_t first, int64_t count, int64_t b, const T* input) {
    const auto add = [&](int64_t term, const T* c) {
      const T* column = mixed.get<T>() + term * dim;
      for (int64_t i = first; i < first + count; ++i) {
        const T by = c[i] * head_.scale(head_.rows[i]);
        for (int64_t d = 0; grad_input != nullptr && d < dim; ++d) grad_input[i * dim + d] += by * column[d];
        if (sums == nullptr) continue;
        T dot = bias[term];
        for (int64_t d = 0; !distance && d < dim; ++d) dot += input[(i - first) * dim + d] * column[d];
        sums[i].scale += c[i] * dot;
      }
    };
    if (blocks_) add(b, missing_);
    if (dense_) add(terms_ - 1, dense_rows_);
  });
}

template <class T>
void Fill<T>::open_segment(int64_t segment, T* bias, T* q, char* panels) const {
  const auto& p = head_.products;
  const int64_t count = std::min(kSegment, head_.vocab - segment * kSegment), steps = p.steps(terms_);
  if (bias != nullptr) std::fill_n(bias, count, T(0));
  if (terms_ == 0) return;
  weights(segment, q);
  for (int64_t t = 0; bias != nullptr && t < terms_; ++t)
    for (int64_t v = 0; v < count; ++v) bias[v] += q[t * kSegment + v] * total_[t];
  p.pack_grad({q, 1, kSegment, kSegment, terms_, p.mr, steps, steps * p.mr}, panels);
}

template <class T>
void Fill<T>::weight_rows(const char* panels, int64_t v0, int64_t count, T* weight) const {
  const auto& p = head_.products;
  const int64_t steps = p.steps(terms_), dim = head_.dim;
  if (terms_ == 0) std::fill_n(weight, count * dim, T(0));
  else p.gemm(count, dim, steps, panels + v0 * steps * p.element_bytes, panels_.get<char>(), weight, dim, false);
}

template class Fill<float>;
template class Fill<double>;

}  // namespace lossk
