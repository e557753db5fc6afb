// Around the forward that leaves a sketch: what it is made relative to, and what makes its totals right.
#pragma once
#include "common/math.h"
#include "device/reduce.h"
#include "head/rows/narrow.cuh"
#include "head/stats/stats.cuh"

namespace lossk::head {

constexpr int kSketchThreads = 256;

// A thread for each row; in double, as merge_rows.
__global__ void __launch_bounds__(kSketchThreads) estimates_of_rows(const __grid_constant__ EstimateParams p) {
  const int64_t line = int64_t{blockIdx.x} * kSketchThreads + threadIdx.x;
  if (line >= p.head.rows_there.of(p.head.rows)) return;
  const auto lse_of = [&](int list) {
    RowState<double> s;
    for (int part = 0; part < p.parts_of_segment * ceil_div(p.counts[list], p.segment); ++part)
      s.merge(state_of(p.partial[(int64_t{list} * p.parts + part) * p.head.rows + line]));
    return s.lse();
  };
  double rest = INFINITY;
  for (int list = 1; list < 3; ++list)
    if (p.counts[list] > 0)
      rest = fmin(rest, lse_of(list) + log(double(p.head.columns - p.counts[0]) / p.counts[list]));
  RowState<double> sum;
  if (p.counts[0] > 0) sum.max = lse_of(0), sum.sum = sum.max == -INFINITY ? 0 : 1;
  if (rest < INFINITY) sum.add(rest, 0);
  p.reference[line] = static_cast<float>(sum.lse());
}

// A block of threads for each block of rows and each segment.
template <bool full>
__global__ void __launch_bounds__(kSketchThreads) scale_segments(const __grid_constant__ ScaleSketchParams p) {
  LOSSK_SHARED(raw);
  auto& shared = *reinterpret_cast<float (*)[kSketchThreads / kWarp]>(raw);
  const int segments = ceil_div(p.head.columns, p.segment);
  const int block = blockIdx.x / segments, segment = blockIdx.x % segments, thread = threadIdx.x;
  const int rows = p.head.rows_there.of(p.head.rows), first = block * kSketchRows;
  if (first >= rows) return;
  float right = 0, made = 0;
  if (const int line = first + thread; thread < kSketchRows && line < rows) {
    const int64_t id = p.head.id(line), n = p.head.rows;
    // Without the picks, as the sums are: what is left of a peaked row counts as if it were all.
    const float lse = p.stats[(full ? 3 : 0) * n + id], low = p.stats[(full ? 4 : 1) * n + id];
    for (int i = 0; i < p.parts_of_segment; ++i) {
      const int64_t at = (int64_t{segment} * p.parts_of_segment + i) * p.head.rows + line;
      float max, sum;
      if constexpr (full) {
        const auto& of = static_cast<const FullState*>(p.partial)[at];
        max = of.max, sum = of.sum;
      } else {
        const auto& of = static_cast<const Partial*>(p.partial)[at];
        max = of.max, sum = of.sum;
      }
      if (sum > 0) right += sum * exp2_approx((max - lse - low) * kLog2E);
    }
  }
  uint16_t* sums = p.sums + int64_t{block} * p.head.columns + int64_t{segment} * p.segment;
  const int count = min(p.segment, p.head.columns - segment * p.segment);
  for (int c = thread; c < count; c += kSketchThreads) made += widen_bf16(sums[c]);
  right = block_reduce(right, Sum(), shared);
  made = block_reduce(made, Sum(), shared);
  const float by = made > 0 || made != made ? right / made : 0;  // nan stays: it makes every column live
  for (int c = thread; c < count; c += kSketchThreads)
    sums[c] = static_cast<uint16_t>(pack_bf16(by * widen_bf16(sums[c]), 0));
}

}  // namespace lossk::head
