// The forward: distances of targets, then sums over each row's harmonic logits.
#pragma once
#include "head/elementwise/pairs.cuh"

namespace lossk::head {

// Of some of a row's columns.
struct HarmonicState {
  float max = -INFINITY, sum = 0, total = 0;

  // Trap: where all are -inf a difference from the largest would be nan. What is nan stays so in the sum.
  LOSSK_DEVICE static float relative(float sum, float max, float to) { return sum == 0 ? 0 : sum * expf(max - to); }
  LOSSK_DEVICE void add(const float (&z)[kSide], const bool (&there)[kSide]) {
    float to = max;
#pragma unroll
    for (int j = 0; j < kSide; ++j) to = there[j] ? maximum(to, z[j]) : to;
    sum = relative(sum, max, to), max = to;
    const float from = to == -INFINITY ? 0 : to;
#pragma unroll
    for (int j = 0; j < kSide; ++j) sum += there[j] ? expf(z[j] - from) : 0;
  }
  LOSSK_DEVICE void merge(const HarmonicState& o) {
    const float to = maximum(max, o.max);
    sum = relative(sum, max, to) + relative(o.sum, o.max, to), total += o.total, max = to;
  }
};

// A block for each 64 rows and segment. Distances of targets come from the same kernel, so that a duplicate of a target
// has its very distance.
template <class C>
__global__ void __launch_bounds__(kPairThreads, C::light ? 2 : 1)
    sums_of_pairs(const __grid_constant__ HarmonicSumsParams p) {
  LOSSK_SHARED(raw);
  const Pairs& of = p.of;
  const int first = static_cast<int>(blockIdx.x) * kTile, there = of.head.rows_there.of(of.head.rows);
  if (first >= there) return;
  const auto target_of = [&](int line) { return line < there ? among(of.target[of.head.id(line)], 0, of.v) : -1; };
  PairsTile<C> tile(of, *reinterpret_cast<PairsShared*>(raw), first, there);
  const int line = first + static_cast<int>(threadIdx.x) / kAcross * kSide;
  const int across = static_cast<int>(threadIdx.x) % kAcross * kSide;
  const auto id_of = [&](int i) { return of.head.id(min(line + i, there - 1)); };
  const auto divide = [&](float d, int i, int column) {
    float slope;
    return of.column_term ? d / denominator(of.metric, of.row_term[id_of(i)] + of.column_term[column], slope) : d;
  };
  float d[kSide][kSide], second[kSide][kSide];

  if (!p.partial) {
    tile.distances({of.w.stride, [&](int i) { return target_of(first + i); }}, d, second);
    if (static_cast<int>(threadIdx.x) / kAcross * kSide != across) return;
#pragma unroll
    for (int i = 0; i < kSide; ++i) {
      const int y = target_of(line + i);
      if (line + i < there) p.at_target[id_of(i)] = y < 0 ? NAN : divide(d[i][i], i, y);
    }
    return;
  }

  const int begin = static_cast<int>(blockIdx.y) * p.segment, end = min(begin + p.segment, of.v);
  HarmonicState state[kSide];
  float at_target[kSide];
  int target[kSide];
#pragma unroll
  for (int i = 0; i < kSide; ++i)
    at_target[i] = square(of.metric, p.at_target[id_of(i)]), target[i] = target_of(line + i);
  for (int column = begin; column < end; column += kTile) {
    tile.distances({of.w.stride, [&](int i) { return column + i < end ? column + i : -1; }}, d, second);
#pragma unroll
    for (int i = 0; i < kSide; ++i) {
      float z[kSide];
      bool is_there[kSide];
      float total = 0;
#pragma unroll
      for (int j = 0; j < kSide; ++j) {
        const int v = column + across + j;
        is_there[j] = v < end && v != target[i];
        z[j] = is_there[j] ? harmonic(of.metric, square(of.metric, divide(d[i][j], i, v)), at_target[i]) : 0;
        total += z[j];
      }
      state[i].add(z, is_there);
      state[i].total += total;
    }
  }
#pragma unroll
  for (int i = 0; i < kSide; ++i) {
#pragma unroll
    for (int lanes = 1; lanes < kAcross; lanes *= 2)
      state[i].merge(
          {shuffle_xor(state[i].max, lanes), shuffle_xor(state[i].sum, lanes), shuffle_xor(state[i].total, lanes)});
    if (across == 0 && line + i < there)
      p.partial[blockIdx.y * int64_t{of.head.rows} + line + i] = {state[i].max, state[i].sum, state[i].total};
  }
}

// A thread for each row, in double.
__global__ void __launch_bounds__(kPairThreads) merge_rows_harmonic(const __grid_constant__ HarmonicMergeParams p) {
  const int64_t line = int64_t{blockIdx.x} * kPairThreads + threadIdx.x;
  if (line >= p.head.rows_there.of(p.head.rows)) return;
  double max = -INFINITY, sum = 0, total = 0;
  for (int i = 0; i < p.segments; ++i) {
    const HarmonicPartial s = p.partial[int64_t{i} * p.head.rows + line];
    total += s.total;
    if (s.sum == 0) continue;
    const double most = s.max > max ? s.max : max;
    sum = (sum == 0 ? 0 : sum * std::exp(max - most)) + s.sum * std::exp(s.max - most), max = most;
  }
  // With the target's z = 0. Where that is the largest the others are small beside its 1, and keep their digits.
  double lse = max > 0 ? max + std::log(sum + std::exp(-max)) : sum == 0 ? 0 : std::log1p(sum * std::exp(max));
  float* row = p.stats + p.head.id(static_cast<int>(line));
  if (std::isnan(row[2 * p.n])) lse = total = NAN;  // whatever the vocabulary
  const auto high = static_cast<float>(lse);
  row[0] = high, row[p.n] = static_cast<float>(total);
  row[3 * p.n] = std::isinf(lse) ? 0 : static_cast<float>(lse - high);
}

}  // namespace lossk::head
