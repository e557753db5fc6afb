#include "head/gradient/gradient.h"
#include "head/gradient/slices.cuh"
#include "head/gradient/sums.cuh"
#include "head/product/launch_mma.h"

namespace lossk::head {

cudaError_t dlogits(const DlogitsParams& p, Element type, bool full, cudaStream_t stream) {
  return dlogits_by<MmaSync>(p, type, full, stream);
}

cudaError_t store(const StoreParams& p, Element type, Along a, Along b, cudaStream_t stream) {
  return store_by<MmaSync>(p, type, a, b, stream);
}

cudaError_t join_slices(const StoreParams& p, Element type, cudaStream_t stream) {
  if (p.rows == 0 || p.columns == 0) return cudaSuccess;
  const int across = ceil_div(p.columns, kJoinColumns);
  if (across > 65535) return cudaErrorInvalidValue;
  const dim3 grid(ceil_div(p.rows, kJoinRows), across);
  return for_type(type, [&](auto element) {
    return launch(join_slices_of<decltype(element)>, {grid, kJoinThreads, 0, stream}, p);
  });
}

cudaError_t find_units(const UnitParams& p, cudaStream_t stream) {
  return launch(units_of_rows, {1, kSumThreads, sizeof(UnitShared), stream}, p);
}

cudaError_t column_sums(const ColumnSumParams& p, Element type, cudaStream_t stream) {
  if (p.columns == 0) return cudaSuccess;
  const auto kernel = type == Element::bf16   ? sums_of_columns<Bf16>
                      : type == Element::fp16 ? sums_of_columns<Fp16>
                                              : sums_of_columns<float>;
  constexpr int kBytes = sizeof(float) * kSumWarps * kSumColumns;
  return launch(kernel, {ceil_div(p.columns, kSumColumns), kSumThreads, kBytes, stream}, p);
}

cudaError_t add_row_sums(const RowSumParams& p, cudaStream_t stream) {
  if (p.n == 0) return cudaSuccess;
  return launch(sums_of_rows, {ceil_div(p.n, kSumThreads), kSumThreads, 0, stream}, p);
}

}  // namespace lossk::head
