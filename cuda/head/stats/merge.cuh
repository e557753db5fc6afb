// Each row's parts, in the order of the columns, to its statistics.
#pragma once
#include "head/stats/parts.cuh"
#include "head/stats/stats.cuh"
#include "head/stats/sum.cuh"

namespace lossk::head {

// As cpp/head/stats.cpp has them. In double, whose cost is nothing beside a product: lse in two floats has 48 bits.
template <bool full>
__global__ void __launch_bounds__(kMergeThreads, 1) merge_rows(const __grid_constant__ MergeParams p) {
  LOSSK_SHARED(raw);
  using State = RowState<double, int>;
  const int64_t line = int64_t{blockIdx.x} * kMergeRows + lane_index();
  const bool there = line < p.head.rows_there.of(p.head.rows);
  const auto of_part = [&](int part) {
    const int64_t at = part * int64_t{p.head.rows} + line;
    if constexpr (full) {
      return static_cast<const FullState*>(p.partial)[at];
    } else {
      FullState one = state_of(static_cast<const Partial*>(p.partial)[at]);
      if (p.slopes && p.sums_z) one.aux_dot = p.slopes[at];
      else if (p.slopes) one.slope = p.slopes[at];
      return one;
    }
  };
  State s = merge_parts(p.parts, there, of_part, *reinterpret_cast<MergeShared<State>*>(raw));
  if (!there || threadIdx.x >= kMergeRows) return;

  const int64_t row = p.head.id(static_cast<int>(line)), n = p.head.rows;
  const int k = p.head.picks.count;
  const int64_t* index = p.index + row * k;
  float* picked = p.picked + row * k;
  const double lse_excl = s.lse();
  if (full)
    for (int i = 0; i < k; ++i) {
      if (index[i] < 0 || index[i] >= p.head.columns) continue;
      bool met = false;
      for (int j = 0; j < i; ++j) met = met || index[j] == index[i];
      if (!met) s.add(picked[i], p.head.aux ? p.head.aux[index[i]] : 1.f);
    }
  const double lse = s.lse();
  for (int i = 0; i < k; ++i) {
    if (index[i] == -1) continue;
    if (index[i] < 0 || index[i] >= p.head.columns) picked[i] = NAN;  // an error, which must show
    p.logp[row * k + i] = static_cast<float>(picked[i] - lse);
  }

  const auto low = [](double x) { return static_cast<float>(x - double(static_cast<float>(x))); };
  p.stats[row] = static_cast<float>(lse);
  p.stats[n + row] = low(lse);
  p.stats[2 * n + row] = p.slopes && !p.sums_z ? static_cast<float>(s.slope / s.sum) : 1;
  if (p.sums_z) p.stats[3 * n + row] = static_cast<float>(s.aux_dot);
  if constexpr (full) {
    const double rest[] = {
        lse_excl, low(lse_excl), s.mean_logit(), s.entropy(), s.lse2(), s.aux_mean(), s.aux_dot - *p.aux_sum * lse,
        s.top,    s.min};
#pragma unroll
    for (int i = 0; i < 9; ++i) p.stats[(3 + i) * n + row] = static_cast<float>(rest[i]);
    p.argmax[row] = s.argmax;
  }
}

constexpr int kAuxThreads = 1024;

__global__ void __launch_bounds__(kAuxThreads) sum_of_aux(const __grid_constant__ AuxParams p) {
  LOSSK_SHARED(raw);
  double sum = 0;
  if (p.aux)
    for (int v = threadIdx.x; v < p.v; v += kAuxThreads) sum += p.aux[v];
  sum = sum_block(sum, *reinterpret_cast<SumShared<kAuxThreads>*>(raw));
  if (threadIdx.x == 0) *p.sum = p.aux ? sum : p.v;
}

}  // namespace lossk::head
