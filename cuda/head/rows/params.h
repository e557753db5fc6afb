// Work on rows before a product: which there are, their elements laid out for it, their picks in order.
#pragma once
#include "head/head.h"

namespace lossk::head {

struct CompactParams {
  const bool* active;  // [n]
  int n;
  int* ids;    // [n]: the active ones, ascending, then zeros
  int* count;  // [1]
};

// to[plane][i] = times[i] from[ids[i]], and zeros beyond the columns, and beyond the rows up to the next 64.
struct GatherParams {
  const void* from;    // [*, columns], columns contiguous
  int64_t row_stride;  // elements
  const int* ids;
  Count count;         // of rows
  const float* times;  // fp16 alone; null: 1
  void* to;            // [planes, rows, to_columns], aligned to 16 bytes
  int rows, columns;
  int to_columns;  // a multiple of 8
};

struct SortPicksParams {
  const int64_t* index;  // [n, k]
  int n, k, v;
  int *column, *entry;  // as Picks has them
};

[[nodiscard]] cudaError_t compact(const CompactParams& p, cudaStream_t stream);
// `type`: bf16, fp16, or fp32, which becomes three planes of bf16 (product/matrix.h).
[[nodiscard]] cudaError_t gather(const GatherParams& p, device::Element type, cudaStream_t stream);
[[nodiscard]] cudaError_t sort_picks(const SortPicksParams& p, cudaStream_t stream);

}  // namespace lossk::head
