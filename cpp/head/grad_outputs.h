// What the head's ops share around a sweep: gradient tensors, chunk sizes, row results.
#pragma once
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "common/parallel.h"
#include "head/head.h"

namespace lossk {

struct GradTensors {  // [0] where not wanted
  Tensor input, weight, bias, scale;
  std::tuple<Tensor, Tensor, Tensor, Tensor> tuple() const { return {input, weight, bias, scale}; }
};

// Zeros, but d weight, which a sweep over any row writes whole.
template <class T>
GradTensors grad_tensors(
    const HeadArgs& a, const Head<T>& head, const Wanted& wanted, ScalarType input_dtype, ScalarType weight_dtype) {
  const int64_t n = head.total, d = head.dim, v = head.vocab;
  const auto make = [&](bool want, std::vector<int64_t> shape, ScalarType dtype) {
    return zeros(a.op, a.input, want ? shape : std::vector<int64_t>{0}, dtype);
  };
  const bool whole = wanted.weight && !head.rows.empty();
  return {
      make(wanted.input, {n, d}, input_dtype),
      whole ? empty(a.op, a.input, {v, d}, weight_dtype) : make(wanted.weight, {v, d}, weight_dtype),
      make(wanted.bias, {v}, scalar_type_of<T>), make(wanted.scale, {n}, scalar_type_of<T>)};
}

// What float (double) leaves off a number: exp(z - lse) at logits of 1e4 needs both parts of lse.
template <class T>
T low_part(double x) {
  return T(x - double(T(x)));
}

constexpr int64_t kBlockBytes = 40 << 20;  // of raw logits, and of unrounded d weight beside them, at a time

// Rows of one chunk of a sweep that keeps nothing: 16 MiB of row states.
template <class T>
int64_t rows_per_chunk(const Head<T>& head, int64_t active) {
  const int64_t per_row = std::max<int64_t>(1, head.segments()) * int64_t(sizeof(RowState<T>));
  return std::max<int64_t>(1, std::min<int64_t>({active, 2048, std::max<int64_t>(96, (16 << 20) / per_row)}));
}

// The picks of one row back into its state: with every statistic the sums have left them out. Each entry counts once.
template <class T>
void add_picks(const Head<T>& head, int64_t row, const T* picked, RowState<double>& state) {
  const int64_t* index = head.index(row);
  for (int64_t k = 0; k < head.picks; ++k)
    if (index[k] >= 0 && std::find(index, index + k, index[k]) == index + k)
      state.add(picked[row * head.picks + k], head.aux(index[k]));
}

// Unrounded elements -> grad, from its element `at` on, in grad's dtype.
template <class T>
void round_to(const T* from, int64_t count, const Tensor& grad, int64_t at) {
  const auto store = [&]<class Out>(Out* to) {
    for (int64_t i = 0; i < count; ++i) to[at + i] = static_cast<Out>(from[i]);
  };
  switch (grad.scalar_type()) {
    case ScalarType::BFloat16: return store(data<c10::BFloat16>(grad));
    case ScalarType::Half: return store(data<c10::Half>(grad));
    default: return store(data<T>(grad));
  }
}

// body(first, count, points) for a few of `count` rows at a time, with room for [count, D] points: see Head::own_input.
template <class T, class Body>
void own_terms(const Head<T>& head, int64_t count, const Body& body) {
  constexpr int64_t kRows = 32;
  if (head.distance == Distance::none) return;
  const int64_t most = workers();
  const Scratch points(head.op, kRows * head.dim * sizeof(T), most);
  parallel_items(ceil_div(count, kRows), most, [&](int64_t worker, int64_t i) {
    body(i * kRows, std::min(kRows, count - i * kRows), points.template get<T>(worker));
  });
}

// The own terms of active rows, unrounded [count, D], and of rows of the weight; sums of the first of each on.
template <class T>
void own_input(const Head<T>& head, int64_t begin, int64_t count, const GradSums<T>* sums, T* grad) {
  own_terms(head, count, [&](int64_t i, int64_t n, T* points) {
    head.own_input(begin + i, n, sums + i, grad + i * head.dim, points);
  });
}
template <class T>
void own_weight(const Head<T>& head, int64_t first, int64_t count, const T* sums, T* grad) {
  own_terms(head, count, [&](int64_t v, int64_t n, T* points) {
    head.own_weight(first + v, n, sums + v, grad + v * head.dim, points);
  });
}

// Unrounded rows [count, D] -> their places in grad [N, D].
template <class T>
void store_rows(const Head<T>& head, const T* from, int64_t begin, int64_t count, const Tensor& grad) {
  parallel_ranges(count, [&](int64_t i0, int64_t i1) {
    for (int64_t i = i0; i < i1; ++i) round_to(from + i * head.dim, head.dim, grad, head.rows[begin + i] * head.dim);
  });
}

}  // namespace lossk
