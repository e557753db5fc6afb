// Each row's sums, in the order of the columns, to one.
#pragma once
#include "head/lse/lse.cuh"

namespace lossk::head {

constexpr int kMergeThreads = 128;

__global__ void __launch_bounds__(kMergeThreads)
    lse_merge(const __grid_constant__ LseParams p, const __grid_constant__ int parts) {
  const int row = static_cast<int>(blockIdx.x * kMergeThreads + threadIdx.x);
  if (row >= p.n) return;
  RowLse all;
  for (int part = 0; part < parts; ++part) all.merge(p.partial[int64_t{part} * p.n + row]);
  p.lse[row] = all.sum == 0 ? kNone : all.max + kLn2 * log2_approx(all.sum);
  if (p.target[row] < 0 || p.target[row] >= p.v) p.target_logit[row] = NAN;
}

}  // namespace lossk::head
