#include "device/launch.h"
#include "head/rows/rows.cuh"

namespace lossk::head {

cudaError_t compact(const CompactParams& p, cudaStream_t stream) {
  return launch(compact_rows, {1, kRowThreads, sizeof(CompactShared), stream}, p);
}

cudaError_t gather(const GatherParams& p, Element type, cudaStream_t stream) {
  if (p.rows == 0) return cudaSuccess;
  if (p.to_columns % 8 || p.to_columns < p.columns || reinterpret_cast<uintptr_t>(p.to) % 16)
    return cudaErrorInvalidValue;
  if (p.times && type != Element::fp16) return cudaErrorInvalidValue;
  const auto kernel = type == Element::fp32 ? gather_rows<float> : p.times ? gather_rows<Fp16> : gather_rows<Bf16>;
  return launch(kernel, {ceil_div(p.rows, kRowThreads / kWarp), kRowThreads, 0, stream}, p);
}

cudaError_t sort_picks(const SortPicksParams& p, cudaStream_t stream) {
  const int64_t entries = int64_t{p.n} * p.k;
  if (entries == 0) return cudaSuccess;
  const int64_t blocks = ceil_div<int64_t>(entries, kRowThreads);
  if (blocks > INT_MAX) return cudaErrorInvalidValue;
  return launch(sort_row_picks, {static_cast<int>(blocks), kRowThreads, 0, stream}, p);
}

}  // namespace lossk::head
