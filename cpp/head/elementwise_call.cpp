#include "head/elementwise_call.h"

namespace lossk {

template <class T>
ElementwiseCall<T>::ElementwiseCall(const ElementwiseArgs& a)
    : head(a.head()),
      kernels(elementwise<T>()),
      metric(metric_of<T>(a, head.dim)),
      divided(is_divided(metric.kind)),
      weight_(a.linear_weight),
      row_term_(a.row_term) {
  const char* op = a.op;
  check_beside<T>(a, head.total, head.vocab);
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
