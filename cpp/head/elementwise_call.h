// A call of an elementwise head: checked, cut into chunks, packed.
#pragma once
#include <string>
#include <vector>

#include "common/parallel.h"
#include "head/elementwise.h"
#include "head/elementwise_args.h"
#include "head/head.h"

namespace lossk {

template <class T>
class ElementwiseCall {
 public:
  explicit ElementwiseCall(const ElementwiseArgs&);  // throws on anything a kernel could trip over

  static constexpr int64_t kRows = 48;  // of a block, beside a panel of columns in L2; a multiple of every tile

  Head<T> head;
  const Elementwise<T>& kernels;
  Metric<T> metric;
  bool divided;                 // by S
  std::vector<int64_t> target;  // of the active rows
  std::vector<T> column_term;   // of whole segments, or empty
  int64_t columns(int64_t segment) const { return std::min(kSegment, head.vocab - segment * kSegment); }
  T row_term(int64_t row) const { return divided ? row_term_.data[row] : T(0); }

  // Rows of a chunk whose `copies` packed copies take 8 MiB at most, but one block at least.
  int64_t rows_of_chunk(int64_t copies) const;
  int64_t row_panels(int64_t count) const { return ceil_div(count, kernels.rows); }
  int64_t row_elements(int64_t count) const { return row_panels(count) * kernels.rows * head.dim; }
  int64_t segment_elements() const { return kSegment * head.dim; }
  int64_t along_elements(int64_t points) const { return round_up(head.dim, kernels.columns) * points; }

  // Panels over rows, over columns (of a segment), and over features with the points, at most `points`, along them.
  using Rows = typename Head<T>::Rows;
  void pack_rows(const Rows&, int64_t count, T* panels) const;
  void pack_columns(int64_t segment, T* panels) const;
  void pack_columns(const void* rows, int64_t count, T* panels) const;  // contiguous ones
  void pack_along(const Rows&, int64_t count, int64_t points, T* panels) const;
  void pack_along(int64_t segment, T* panels) const;

  // Distances of rows [begin, begin + count) of the packed chunk, of which the first is active row `chunk`.
  void distances(
      int64_t chunk, int64_t begin, int64_t count, const T* rows, int64_t segment, const T* columns, T* d,
      T* second) const;
  Distances<T> row_of(int64_t active_row, int64_t segment, const T* d, T at_target) const;
  // d_iy of a chunk, by the same chain of operations as all others: a copy of the target's column has z = 0 exactly.
  void at_targets(int64_t chunk, int64_t count, const T* rows, T* d) const;

 private:
  int64_t bytes() const { return bytes_of(head.dtype); }
  Rows segment_of(int64_t segment) const;

  Tensor weight_;
  Optional<T> row_term_;
};

}  // namespace lossk
