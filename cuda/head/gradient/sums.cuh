// What stands beside the products of the backward: float16's unit, and the gradients of bias and scale.
#pragma once
#include "common/math.h"
#include "device/reduce.h"
#include "head/gradient/params.h"
#include "head/rows/narrow.cuh"

namespace lossk::head {

using namespace device;

constexpr float kLargestDlogit = 1 << 14;  // float16 holds four times that

constexpr int kSumThreads = 256, kSumWarps = kSumThreads / kWarp, kSumColumns = 2 * kWarp;

// Of the coefs: |dlogit| <= scale (|a0| + |a1| / e + |a2| + |aX| + max |aux| (|a3| + |b|) + sum |pick|), for p |log p|
// <= 1 / e.
// The largest that is not above x > 0.
LOSSK_DEVICE float power_of_two(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  bits &= 0x7f800000;
  memcpy(&x, &bits, 4);
  return x;
}

struct UnitShared {
  float scratch[kSumWarps];
};
__global__ void __launch_bounds__(kSumThreads) units_of_rows(const __grid_constant__ UnitParams p) {
  LOSSK_SHARED(raw);
  auto& shared = *reinterpret_cast<UnitShared*>(raw);
  float aux = 1;
  if (p.full && p.head.aux && p.head.distance == Distance::none) {
    aux = 0;
    for (int v = threadIdx.x; v < p.head.columns; v += kSumThreads) aux = maximum(aux, fabsf(p.head.aux[v]));
    aux = block_reduce(aux, Max(), shared.scratch);
  }
  const bool distance = p.head.distance != Distance::none;
  float longest = 1;
  if (p.head.distance == Distance::cosine) {  // columns multiply dlogits
    float most = 0;
    for (int v = threadIdx.x; v < p.head.columns; v += kSumThreads) most = maximum(most, fabsf(p.head.bias[v]));
    longest = block_reduce(most, Max(), shared.scratch);
  }
  // What a distance's logarithm is of is at least exp(-lse / power).
  const auto slope_bound = [&](int64_t id) {
    const float lse = p.coefs.lse[id] / p.head.power, by = p.head.power * p.head.terms[id] * longest;
    return is_squared(p.head.distance) ? by * expf(lse) : 2 * by * expf(lse / 2);
  };
  const auto bound_of = [&](int row) {
    const int64_t id = p.head.id(row);
    const auto a = [&](int k) { return fabsf(p.coefs.row[int64_t{k} * p.coefs.n + id]); };
    float bound = p.bound ? p.bound[id] : a(0);
    if (distance) bound += a(1);
    if (p.full && !distance) bound += a(1) + a(2) + a(4) + aux * (a(3) + a(5));
    for (int k = 0; p.coefs.pick && k < p.head.picks.count; ++k)
      bound += fabsf(p.coefs.pick[id * p.head.picks.count + k]);
    if (p.head.scale) bound *= fabsf(p.head.scale[id]);
    if (distance) bound *= slope_bound(id);
    return fmaxf(bound, 1e-30f);
  };
  // A distance's are powers of two: what d weight's product takes of input is then not rounded, and cancels near a
  // centre with what own.cuh takes off.
  const auto unit_of = [&](float bound) {
    const float unit = kLargestDlogit / bound;
    return distance ? power_of_two(unit) : unit;
  };
  const int rows = p.head.rows_there.of(p.head.rows);
  float most = 0;
  for (int row = threadIdx.x; row < rows; row += kSumThreads) {
    const float bound = bound_of(row);
    p.unit[row] = unit_of(bound);
    most = maximum(most, bound);
  }
  most = block_reduce(most, Max(), shared.scratch);
  for (int row = threadIdx.x; row < rows; row += kSumThreads) {
    const float bound = bound_of(row);
    p.times[row] = distance ? unit_of(most) / unit_of(bound) : bound / most;
  }
  if (threadIdx.x == 0) p.unit[p.head.rows] = rows > 0 ? unit_of(most) : 1;
}

// A block for each 64 columns; its warps share the rows.
template <class T>
__global__ void __launch_bounds__(kSumThreads) sums_of_columns(const __grid_constant__ ColumnSumParams p) {
  LOSSK_SHARED(raw);
  auto& shared = *reinterpret_cast<float (*)[kSumWarps][kSumColumns]>(raw);
  const int lane = lane_index(), warp = threadIdx.x / kWarp;
  const int column = static_cast<int>(blockIdx.x) * kSumColumns + 2 * lane;
  const int rows = p.count.of(p.rows), columns = p.columns_there.of(p.columns);
  if (static_cast<int>(blockIdx.x) * kSumColumns >= columns) return;
  float low = 0, high = 0;
  for (int plane = Planes<T>::planes - 1; plane >= 0 && column < p.stride; --plane)
    for (int row = warp; row < rows; row += kSumWarps) {
      const int64_t place = (int64_t{plane} * p.rows + row) * p.stride + column;
      const uint32_t pair = static_cast<const uint32_t*>(p.from)[place / 2];
      const float by = p.unit ? 1 / p.unit[row] : 1;
      low += by * widen<T>(pair);
      high += by * widen<T>(pair >> 16);
    }
  shared[warp][2 * lane] = low;
  shared[warp][2 * lane + 1] = high;
  sync_block();
  const int own = static_cast<int>(blockIdx.x) * kSumColumns + static_cast<int>(threadIdx.x);
  if (threadIdx.x >= kSumColumns || own >= columns) return;
  float sum = 0;
  for (int w = 0; w < kSumWarps; ++w) sum += shared[w][threadIdx.x];
  p.to[p.ids ? p.ids[own] : own] += sum;
}

__global__ void __launch_bounds__(kSumThreads) sums_of_rows(const __grid_constant__ RowSumParams p) {
  const int64_t row = int64_t{blockIdx.x} * kSumThreads + threadIdx.x;
  if (row >= p.count.of(p.n)) return;
  float sum = 0;
  for (int part = 0; part < p.parts; ++part) sum += p.from[int64_t{part} * p.n + row];
  p.to[p.ids ? p.ids[row] : row] += p.unit ? sum / p.unit[row] : sum;
}

}  // namespace lossk::head
