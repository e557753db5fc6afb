// The segments' sums of each row, in their order, to one.
#pragma once
#include "head/lse/row_lse.cuh"

namespace lossk::head {

constexpr int kMergeThreads = 128;

__global__ void __launch_bounds__(kMergeThreads) lse_merge(const __grid_constant__ LseParams p) {
  const int row = static_cast<int>(blockIdx.x * kMergeThreads + threadIdx.x);
  if (row >= p.n) return;
  RowLse all;
  for (int64_t i = row, first = 0; first < p.v; first += p.segment, i += p.n) all.merge(p.partial[i]);
  p.lse[row] = all.sum == 0 ? kNone : all.max + kLn2 * log2_approx(all.sum);
  if (p.target[row] < 0 || p.target[row] >= p.v) p.target_logit[row] = NAN;
}

}  // namespace lossk::head
