#include "head/elementwise_call.h"

#include <cmath>
#include <iterator>

namespace lossk {
namespace {

ElementDistance element_distance_of(const char* op, const std::string& name) {
  for (int k = 0; k < int(std::size(kElementDistanceNames)); ++k)
    if (name == kElementDistanceNames[k]) return ElementDistance(k);
  std::string all;
  for (const char* known : kElementDistanceNames) all += std::string(all.empty() ? "" : ", ") + known;
  fail(op, ": kind must be one of ", all, ", got ", name);
}

void check_positive(const char* op, const char* name, double x) {
  check(x > 0 && std::isfinite(x), op, ": ", name, " must be a finite number > 0, got ", x);
}

}  // namespace

template <class T>
ElementwiseCall<T>::ElementwiseCall(const ElementwiseArgs& a)
    : head(a.head()),
      kernels(elementwise<T>()),
      metric{element_distance_of(a.op, a.kind), T(a.p), T(a.power), T(a.eps)},
      weight_(a.linear_weight),
      row_term_(a.row_term) {
  const char* op = a.op;
  divided = metric.kind == ElementDistance::bray_curtis || metric.kind == ElementDistance::bray_curtis_standard;
  check_positive(op, "power", a.power);
  check_positive(op, "eps", a.eps);
  // Those that take no p, and the power of weights, which may be anything.
  if (metric.kind == ElementDistance::canberra_weighted) check(std::isfinite(a.p), op, ": p must be finite, got ", a.p);
  else if (metric.kind >= ElementDistance::smooth_chebyshev || metric.kind == ElementDistance::bray_curtis_standard)
    check_positive(op, "p", a.p);
  check(T(a.eps) > 0, op, ": eps must be > 0 in ", dtype_name(scalar_type_of<T>), ", got ", a.eps);
  // Places are kept as numbers.
  check(
      metric.kind != ElementDistance::chebyshev || head.dim < 1 << 24, op,
      ": input must have fewer than 2^24 columns, got ", head.dim);
  check_tensor(op, "target", a.target, {head.total}, ScalarType::Long);
  for (const auto& [name, term, size] :
       {std::tuple("row_term", &a.row_term, head.total), std::tuple("column_term", &a.column_term, head.vocab)}) {
    check(
        term->has_value() == divided, op, ": ", name, divided ? " must be given for " : " must be absent for ", a.kind);
    if (divided) check_tensor(op, name, **term, {size}, scalar_type_of<T>);
  }
  const Optional<int64_t> targets(a.target);
  target.reserve(head.rows.size());
  for (int64_t row : head.rows) {
    const int64_t y = targets.data[row];
    check(y >= 0 && y < head.vocab, op, ": target must be in [0, ", head.vocab, "), got ", y, " at [", row, "]");
    target.push_back(y);
  }
  if (divided) {
    const Optional<T> columns(a.column_term);
    column_term.assign(head.segments() * kSegment, T(1));
    std::copy_n(columns.data, head.vocab, column_term.begin());
  }
}

template <class T>
int64_t ElementwiseCall<T>::rows_of_chunk(int64_t copies) const {
  const int64_t row_bytes = std::max<int64_t>(1, copies * head.dim * int64_t(sizeof(T)));
  const int64_t blocks = std::clamp<int64_t>((8 << 20) / row_bytes / kRows, 1, 1056 / kRows);
  return std::min(blocks * kRows, std::max<int64_t>(1, head.rows.size()));
}

template <class T>
void ElementwiseCall<T>::pack_rows(const Rows& in, int64_t count, T* panels) const {
  const int64_t dim = head.dim, mr = kernels.rows;
  parallel_ranges(row_panels(count), [&](int64_t p0, int64_t p1) {
    const int64_t r0 = p0 * mr, r1 = std::min(p1 * mr, count);
    const char* from = in.data + r0 * in.row_stride * bytes();
    kernels.pack(
        head.dtype, {from, in.row_stride, in.column_stride, r1 - r0, dim, mr, dim, dim * mr}, panels + r0 * dim);
  });
}

template <class T>
typename Head<T>::Rows ElementwiseCall<T>::segment_of(int64_t segment) const {
  const auto* all = static_cast<const char*>(weight_.data_ptr());
  return {all + segment * kSegment * weight_.stride(0) * bytes(), weight_.stride(0), weight_.stride(1)};
}

template <class T>
void ElementwiseCall<T>::pack_columns(int64_t segment, T* panels) const {
  const int64_t dim = head.dim, nr = kernels.columns;
  const Rows w = segment_of(segment);
  kernels.pack(head.dtype, {w.data, w.row_stride, w.column_stride, columns(segment), dim, nr, dim, dim * nr}, panels);
}

template <class T>
void ElementwiseCall<T>::pack_columns(const void* rows, int64_t count, T* panels) const {
  const int64_t dim = head.dim, nr = kernels.columns;
  kernels.pack(head.dtype, {rows, dim, 1, count, dim, nr, dim, dim * nr}, panels);
}

template <class T>
void ElementwiseCall<T>::pack_along(const Rows& in, int64_t count, int64_t points, T* panels) const {
  const int64_t nr = kernels.columns;
  parallel_ranges(ceil_div(head.dim, nr), [&](int64_t p0, int64_t p1) {
    const int64_t k0 = p0 * nr, k1 = std::min(p1 * nr, head.dim);
    const char* from = in.data + k0 * in.column_stride * bytes();
    kernels.pack(
        head.dtype, {from, in.column_stride, in.row_stride, k1 - k0, count, nr, points, points * nr},
        panels + k0 * points);
  });
}

template <class T>
void ElementwiseCall<T>::pack_along(int64_t segment, T* panels) const {
  pack_along(segment_of(segment), columns(segment), kSegment, panels);
}

template <class T>
void ElementwiseCall<T>::distances(
    int64_t chunk, int64_t begin, int64_t count, const T* rows, int64_t segment, const T* columns_, T* d,
    T* second) const {
  const int64_t wide = columns(segment);
  kernels.distances(
      metric, head.dim, row_panels(count), rows + begin * head.dim, ceil_div(wide, kernels.columns), columns_, d,
      second);
  for (int64_t i = 0; divided && i < count; ++i)
    kernels.divide(
        metric, row_term(head.rows[chunk + begin + i]), column_term.data() + segment * kSegment, wide,
        d + i * kSegment);
}

template <class T>
Distances<T> ElementwiseCall<T>::row_of(int64_t active_row, int64_t segment, const T* d, T at_target) const {
  const int64_t first = segment * kSegment;
  return {
      d,
      columns(segment),
      target[active_row] - first,
      at_target,
      row_term(head.rows[active_row]),
      divided ? column_term.data() + first : nullptr};
}

template <class T>
void ElementwiseCall<T>::at_targets(int64_t chunk, int64_t count, const T* rows, T* d) const {
  const int64_t dim = head.dim, mr = kernels.rows, most = workers();
  const Scratch gathered(head.op, count * dim * bytes()), panels(head.op, kernels.columns * dim * sizeof(T), most);
  const Scratch tiles(head.op, mr * kSegment * sizeof(T), most);
  gather_rows(weight_, target.data() + chunk, count, gathered.get<char>());
  parallel_items(row_panels(count), most, [&](int64_t worker, int64_t panel) {
    const int64_t r0 = panel * mr, here = std::min(mr, count - r0);
    T *columns = panels.get<T>(worker), *tile = tiles.get<T>(worker);
    pack_columns(gathered.get<char>() + r0 * dim * bytes(), here, columns);
    kernels.distances(metric, dim, 1, rows + r0 * dim, 1, columns, tile, nullptr);
    for (int64_t i = 0; i < here; ++i) {
      T* row = tile + i * kSegment;
      if (divided) {
        const std::vector<T> term(kernels.columns, column_term[target[chunk + r0 + i]]);
        kernels.divide(metric, row_term(head.rows[chunk + r0 + i]), term.data(), term.size(), row);
      }
      d[r0 + i] = row[i];
    }
  });
}

template class ElementwiseCall<float>;
template class ElementwiseCall<double>;

}  // namespace lossk
