#include "head/head.h"

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cstring>

#include "common/parallel.h"

namespace lossk {
namespace {

void check_optional(
    const char* op, const char* name, const std::optional<Tensor>& x, std::initializer_list<int64_t> shape,
    ScalarType type) {
  if (x.has_value()) check_tensor(op, name, *x, shape, type);
}

}  // namespace

template <class Id>
void gather_rows(const Tensor& matrix, const Id* ids, int64_t count, void* to) {
  const int64_t columns = matrix.size(1), bytes = bytes_of(matrix.scalar_type());
  const int64_t row_bytes = matrix.stride(0) * bytes, step = matrix.stride(1) * bytes;
  const auto* all = static_cast<const char*>(matrix.data_ptr());
  parallel_ranges(count, [&](int64_t i0, int64_t i1) {
    for (int64_t i = i0; i < i1; ++i) {
      const char* from = all + ids[i] * row_bytes;
      char* row = static_cast<char*>(to) + i * columns * bytes;
      if (step == bytes) std::memcpy(row, from, columns * bytes);
      else
        for (int64_t d = 0; d < columns; ++d) std::memcpy(row + d * bytes, from + d * step, bytes);
    }
  });
}

template void gather_rows(const Tensor&, const int32_t*, int64_t, void*);
template void gather_rows(const Tensor&, const int64_t*, int64_t, void*);

template <class T>
Head<T>::Head(const HeadArgs& a)
    : op(a.op),
      dtype(a.input.scalar_type()),
      products(lossk::products<T>(dtype)),
      epilogue(lossk::epilogue<T>()),
      picks(0),
      input_(a.input),
      weight_(a.linear_weight),
      bias_(a.distance ? std::optional(a.distance->columns) : a.linear_bias),
      scale_(a.scale),
      aux_(a.aux),
      terms_(a.distance ? std::optional(a.distance->rows) : std::nullopt),
      index_(a.index),
      softcap_(a.softcap),
      margin_(a.margin),
      element_bytes_(bytes_of(dtype)) {
  check(a.input.dim() == 2, op, ": input must be [N, D], got ", shape_text(a.input.sizes()));
  total = a.input.size(0), dim = a.input.size(1);
  check(
      a.linear_weight.dim() == 2 && a.linear_weight.size(1) == dim, op, ": linear_weight must be [V, ", dim, "], got ",
      shape_text(a.linear_weight.sizes()));
  vocab = a.linear_weight.size(0);
  check_tensor(op, "linear_weight", a.linear_weight, {vocab, dim}, dtype);
  check_optional(op, "linear_bias", a.linear_bias, {vocab}, scalar_type_of<T>);
  check_optional(op, "scale", a.scale, {total}, scalar_type_of<T>);
  check_optional(op, "aux", a.aux, {vocab}, scalar_type_of<T>);
  check_optional(op, "active", a.active, {total}, ScalarType::Bool);
  if (a.index.has_value()) {
    check(a.index->dim() == 2, op, ": index must be [N, K], got ", shape_text(a.index->sizes()));
    picks = a.index->size(1);
    check_tensor(op, "index", *a.index, {total, picks}, ScalarType::Long);
  }
  check(a.softcap >= 0 && a.softcap < INFINITY, op, ": softcap must be finite and >= 0, got ", a.softcap);
  check(std::isfinite(a.margin), op, ": margin must be finite, got ", a.margin);
  if (a.distance) {
    check_tensor(op, "rows", a.distance->rows, {4, total}, scalar_type_of<T>);
    check_tensor(op, "columns", a.distance->columns, {vocab}, scalar_type_of<T>);
    power_ = a.distance->power;
    check(power_ > 0 && power_ < INFINITY, op, ": power must be finite and > 0, got ", power_);
    distance = distance_of(op, a.distance->kind);
  }
  for (int64_t v = 0; v < vocab; ++v) aux_sum += aux(v);

  const Optional<bool> active(a.active);
  rows.reserve(total);
  for (int64_t i = 0; i < total; ++i)
    if (active.data == nullptr || active.data[i]) rows.push_back(i);
  for (int64_t i : rows)
    for (int64_t k = 0; k < picks; ++k) {
      const int64_t v = index(i)[k];
      check(v >= -1 && v < vocab, op, ": index must be in [0, ", vocab, ") or -1, got ", v, " at [", i, ", ", k, "]");
    }
}

template <class T>
void Head<T>::load(int64_t segment, Segment<T>& s) const {
  s.first = segment * kSegment;
  s.count = std::min(kSegment, vocab - s.first);
  s.softcap = T(softcap_), s.margin = T(margin_), s.picks = picks;
  s.distance = distance, s.power = T(power_), s.bf16 = products.unit > 1;
  s.has_bias = bias_.data != nullptr, s.row_sums = false;
  for (int64_t v = 0; v < kSegment; ++v) {
    s.bias[v] = v < s.count && s.has_bias ? bias_.data[s.first + v] : T(0);
    s.aux[v] = v < s.count ? aux(s.first + v) : T(0);
  }
}

template <class T>
typename Head<T>::Rows Head<T>::gather(int64_t begin, int64_t count, char* buffer) const {
  const auto* all = static_cast<const char*>(input_.data_ptr());
  const int64_t row_stride = input_.stride(0), column_stride = input_.stride(1), bytes = element_bytes_;
  if (all_active()) return {all + begin * row_stride * bytes, row_stride, column_stride};
  gather_rows(input_, rows.data() + begin, count, buffer);
  return {buffer, dim, 1};
}

namespace {

// Rows row_of(0), ..., row_of(count - 1) of a matrix -> to [count, D].
template <class T, class RowOf>
void widen_rows(const Tensor& matrix, int64_t count, const RowOf& row_of, T* to) {
  const int64_t dim = matrix.size(1), row_stride = matrix.stride(0), step = matrix.stride(1);
  const auto copy = [&]<class From>(const From* all) {
    for (int64_t i = 0; i < count; ++i) {
      const From* from = all + row_of(i) * row_stride;
      if (step == 1)  // apart, so that it becomes vector code
        for (int64_t d = 0; d < dim; ++d) to[i * dim + d] = static_cast<T>(from[d]);
      else
        for (int64_t d = 0; d < dim; ++d) to[i * dim + d] = static_cast<T>(from[d * step]);
    }
  };
  switch (matrix.scalar_type()) {
    case ScalarType::BFloat16: return copy(data<c10::BFloat16>(matrix));
    case ScalarType::Half: return copy(data<c10::Half>(matrix));
    default: return copy(data<T>(matrix));
  }
}

// Several sums side by side, so that it becomes vector code.
template <class T>
double dot(const T* a, const T* b, int64_t count) {
  constexpr int64_t kSums = 8;
  double sums[kSums] = {}, rest = 0;
  int64_t i = 0;
  for (; i + kSums <= count; i += kSums)
    for (int64_t k = 0; k < kSums; ++k) sums[k] += double(a[i + k]) * double(b[i + k]);
  for (; i < count; ++i) rest += double(a[i]) * double(b[i]);
  for (double sum : sums) rest += sum;
  return rest;
}

}  // namespace

template <class T>
void Head<T>::widen(int64_t begin, int64_t count, T* to) const {
  widen_rows(input_, count, [&](int64_t i) { return rows[begin + i]; }, to);
}

template <class T>
void Head<T>::widen_weight(int64_t first, int64_t count, T* to) const {
  widen_rows(weight_, count, [&](int64_t i) { return first + i; }, to);
}

template <class T>
void Head<T>::own(const T* points, int64_t count, const T* sums, int64_t stride, T* grad) const {
  for (int64_t i = 0; i < count; ++i, points += dim, grad += dim) {
    T by = distance == Distance::cosine ? 0 : sums[i * stride];
    if (distance == Distance::cosine) {
      const double along = dot(grad, points, dim), square = dot(points, points, dim);
      // A point at the origin has no direction, and no gradient.
      if (square == 0) std::fill_n(grad, dim, T(0));
      else by = T(along / square);
    }
    for (int64_t d = 0; d < dim; ++d) grad[d] -= by * points[d];
  }
}

template <class T>
void Head<T>::own_input(int64_t begin, int64_t count, const GradSums<T>* sums, T* grad, T* points) const {
  widen(begin, count, points);
  own(points, count, &sums->scale, sizeof(GradSums<T>) / sizeof(T), grad);
}

template <class T>
void Head<T>::own_weight(int64_t first, int64_t count, const T* sums, T* grad, T* points) const {
  widen_weight(first, count, points);
  own(points, count, sums, 1, grad);
}

template <class T>
void Head<T>::pack_input(const Rows& in, int64_t count, void* panels) const {
  const int64_t steps = products.steps(dim), mr = products.mr;
  auto* out = static_cast<char*>(panels);
  parallel_ranges(ceil_div(count, mr), [&](int64_t p0, int64_t p1) {
    const int64_t r0 = p0 * mr, r1 = std::min(p1 * mr, count);
    products.pack_input(
        {in.data + r0 * in.row_stride * element_bytes_, in.row_stride, in.column_stride, r1 - r0, dim, mr, steps,
         steps * mr},
        out + r0 * steps * products.element_bytes);
  });
}

template <class T>
void Head<T>::pack_input_t(const Rows& in, int64_t count, int64_t steps, void* panels) const {
  const int64_t nr = products.nr;
  auto* out = static_cast<char*>(panels);
  parallel_ranges(ceil_div(dim, nr), [&](int64_t p0, int64_t p1) {
    const int64_t d0 = p0 * nr, d1 = std::min(p1 * nr, dim);
    products.pack_input(
        {in.data + d0 * in.column_stride * element_bytes_, in.column_stride, in.row_stride, d1 - d0, count, nr, steps,
         steps * nr},
        out + d0 * steps * products.element_bytes);
  });
}

template <class T>
void Head<T>::pack_weight(int64_t segment, void* panels) const {
  const int64_t steps = products.steps(dim), nr = products.nr, first = segment * kSegment;
  const auto* all = static_cast<const char*>(weight_.data_ptr());
  products.pack_input(
      {all + first * weight_.stride(0) * element_bytes_, weight_.stride(0), weight_.stride(1),
       std::min(kSegment, vocab - first), dim, nr, steps, steps * nr},
      panels);
}

template <class T>
void Head<T>::pack_weight_t(int64_t segment, int64_t d0, int64_t d1, void* panels) const {
  const int64_t steps = products.steps(kSegment), nr = products.nr, first = segment * kSegment;
  const auto* all = static_cast<const char*>(weight_.data_ptr());
  products.pack_input(
      {all + (first * weight_.stride(0) + d0 * weight_.stride(1)) * element_bytes_, weight_.stride(1),
       weight_.stride(0), d1 - d0, std::min(kSegment, vocab - first), nr, steps, steps * nr},
      panels);
}

template class Head<float>;
template class Head<double>;

}  // namespace lossk
