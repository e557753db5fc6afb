// The backward's first half: distances again, and what slopes are multiplied by.
#pragma once
#include "head/elementwise/pairs.cuh"

namespace lossk::head {

// A thread for each row, in double.
__global__ void __launch_bounds__(kPairThreads) facts_of_rows(const __grid_constant__ HarmonicRowsParams p) {
  const int64_t line = int64_t{blockIdx.x} * kPairThreads + threadIdx.x;
  if (line >= p.head.rows_there.of(p.head.rows)) return;
  const int64_t id = p.head.id(static_cast<int>(line));
  const float *stats = p.stats + id, *coef = p.row_coef + id;
  const double d = stats[2 * p.n], lse = double{stats[0]} + stats[3 * p.n], a = coef[0], b = coef[p.n];
  const double by_z = a * -std::expm1(-lse) + b * (p.v - 1);
  const double target = 2 * double{p.metric.power} * d / (d * d + p.metric.eps) * by_z;
  // A pair is left out where dL/dd is at most half an ulp of 1 / V of the target's: all of a row's together are then
  // less than the rounding of the target's own term in the sums that they would join.
  const double negligible = std::fabs(target) * 0x1p-24 / p.v;
  p.rows[line] = {
      stats[0],
      stats[3 * p.n],
      coef[0],
      coef[p.n],
      square(p.metric, stats[2 * p.n]),
      static_cast<float>(target),
      static_cast<float>(negligible)};
}

// A block for each 64 rows and 64 columns.
template <class C>
__global__ void __launch_bounds__(kPairThreads, C::light ? 2 : 1)
    coefs_of_pairs(const __grid_constant__ PairCoefsParams p) {
  LOSSK_SHARED(raw);
  const Pairs& of = p.of;
  const Head& head = of.head;
  const int first = static_cast<int>(blockIdx.x) * kTile, there = head.rows_there.of(head.rows);
  if (first >= there) return;
  const int begin = static_cast<int>(blockIdx.y) * kTile;
  PairsTile<C> tile(of, *reinterpret_cast<PairsShared*>(raw), first, there);
  float d[kSide][kSide], second[kSide][kSide];
  tile.distances(
      {of.w.stride, [&](int i) { return begin + i < head.columns ? int64_t{head.first} + begin + i : int64_t{-1}; }}, d,
      second);

  const int line = first + static_cast<int>(threadIdx.x) / kAcross * kSide;
  const int column = begin + static_cast<int>(threadIdx.x) % kAcross * kSide;
#pragma unroll
  for (int i = 0; i < kSide; ++i) {
    if (line + i >= there) break;
    const HarmonicRow row = p.rows[head.first_row + line + i];
    const int64_t id = head.id(line + i);
    const int target = among(of.target[id], head.first, head.columns);
    Quad a, e;
#pragma unroll
    for (int j = 0; j < kSide; ++j) {
      a.x[j] = e.x[j] = 0;
      if (column + j >= head.columns) continue;
      float distance = d[i][j], slope = 0, s = 1;
      if (of.column_term) {
        s = denominator(of.metric, of.row_term[id] + of.column_term[head.first + column + j], slope);
        distance /= s;
      }
      const float near = square(of.metric, distance), z = harmonic(of.metric, near, row.at_target);
      const float by_z = row.a * expf(z - row.lse - row.low) + row.b;
      const float by_d = column + j == target ? row.target : -2 * of.metric.power * by_z * distance / near;
      float by = by_d / s, other = of.column_term ? (by_d == 0 ? 0 : -by * distance * slope) : second[i][j];
      tile.core().coefs(by, other, distance);
      a.x[j] = fabsf(by_d) <= row.negligible ? 0 : by, e.x[j] = other;
    }
    const int64_t place = (line + i) * p.stride + column;
    *reinterpret_cast<Quad*>(p.a + place) = a;
    if (p.e) *reinterpret_cast<Quad*>(p.e + place) = e;
  }
}

// Sums of e. A warp for each row, over spans of 128 columns.
__global__ void __launch_bounds__(kPairThreads) row_terms_of_pairs(const __grid_constant__ TermSumsParams p) {
  const int line = (static_cast<int>(blockIdx.x) * kPairThreads + static_cast<int>(threadIdx.x)) / kWarp;
  if (line >= p.head.rows_there.of(p.head.rows)) return;
  float* to = p.rows + p.head.id(line);
  float total = *to;
  sync_warp();
  for (int span = 0; span < p.head.columns; span += kWarp * kSide) {
    const int column = span + lane_index() * kSide;
    float sum = 0;
    if (column < p.head.columns) {
      const Quad e = *reinterpret_cast<const Quad*>(p.e + line * p.stride + column);
      sum = (e.x[0] + e.x[1]) + (e.x[2] + e.x[3]);
    }
    total += warp_reduce(sum, Sum());
  }
  if (lane_index() == 0) *to = total;
}

// A block for each 32 columns; its warps share the rows, in chains of 32.
struct TermShared {
  float sums[kPairThreads / kWarp][kWarp];
};
__global__ void __launch_bounds__(kPairThreads) column_terms_of_pairs(const __grid_constant__ TermSumsParams p) {
  LOSSK_SHARED(raw);
  auto& shared = *reinterpret_cast<TermShared*>(raw);
  const int warp = static_cast<int>(threadIdx.x) / kWarp, column = static_cast<int>(blockIdx.x) * kWarp + lane_index();
  const int rows = p.head.rows_there.of(p.head.rows);
  float total = 0;
  for (int first = warp * kWarp; column < p.head.columns && first < rows; first += kPairThreads) {
    float sum = 0;
    for (int line = first; line < min(first + kWarp, rows); ++line) sum += p.e[line * p.stride + column];
    total += sum;
  }
  shared.sums[warp][lane_index()] = total;
  sync_block();
  if (warp > 0 || column >= p.head.columns) return;
  for (int i = 1; i < kPairThreads / kWarp; ++i) total += shared.sums[i][lane_index()];
  p.columns[p.head.first + column] += total;
}

}  // namespace lossk::head
