// The backward's second half: whoever owns a row of a gradient sums over its pairs.
#pragma once
#include "head/elementwise/pairs.cuh"
#include "head/rows/narrow.cuh"

namespace lossk::head {

// A block has 32 own points and 128 features: a warp four points, each thread four features of them. What a pair is
// multiplied by is the same for the whole warp, which passes over pairs that are negligible to its four.
constexpr int kOwn = kPairThreads / kWarp * kSide, kFeatures = kWarp * kSide;
constexpr int kOthers = 32;          // of a step, and of a chain, as kChain
constexpr int kOwnPitch = kOwn + 4;  // quads are aligned

template <bool two>
struct SlopesShared {
  float other[kOthers][kFeatures];
  float a[kOthers][kOwnPitch], e[two ? kOthers : 1][kOwnPitch];
};

template <class C>
__global__ void __launch_bounds__(kPairThreads, C::light ? 2 : 1)
    slopes_of_pairs(const __grid_constant__ PairSlopesParams p) {
  LOSSK_SHARED(raw);
  auto& shared = *reinterpret_cast<SlopesShared<C::two>*>(raw);
  const Pairs& of = p.of;
  const Head& head = of.head;
  const int rows = head.rows_there.of(head.rows), columns = head.columns;
  const int owns = p.of_rows ? rows : columns, others = p.of_rows ? columns : rows;
  const int first = static_cast<int>(blockIdx.x) * kOwn, lane = lane_index(),
            warp = static_cast<int>(threadIdx.x) / kWarp;
  if (first >= owns) return;
  const C core{{of.metric.p}};
  const auto feature_of = [&](bool row, int point, int k) {
    if (k >= of.d || point >= (row ? rows : columns)) return 0.f;
    const Points& from = row ? of.x : of.w;
    return element(from, of.type, (row ? head.id(point) : int64_t{head.first} + point) * from.stride + k);
  };

  for (int from = static_cast<int>(blockIdx.y) * kFeatures; from < of.d;
       from += static_cast<int>(gridDim.y) * kFeatures) {
    const int own = first + warp * kSide, k = from + lane * kSide;
    const auto sum_at = [&](int i, int j) {
      return ((p.of_rows ? int64_t{head.first_row} : 0) + own + i) * of.d + k + j;
    };
    float x[kSide][kSide], total[kSide][kSide];
#pragma unroll
    for (int i = 0; i < kSide; ++i)
#pragma unroll
      for (int j = 0; j < kSide; ++j) {
        x[i][j] = feature_of(p.of_rows, own + i, k + j);
        total[i][j] = !p.first && own + i < owns && k + j < of.d ? p.sum[sum_at(i, j)] : 0;
      }

    for (int step = 0; step < others; step += kOthers) {
      sync_block();  // the step before is read
#pragma unroll 2
      for (int i = static_cast<int>(threadIdx.x); i < kOthers * kFeatures; i += kPairThreads)
        shared.other[i / kFeatures][i % kFeatures] = feature_of(!p.of_rows, step + i / kFeatures, from + i % kFeatures);
#pragma unroll 2
      for (int i = warp; i < kOwn; i += kPairThreads / kWarp) {  // a row of the pairs
        const int row = (p.of_rows ? first : step) + i, column = (p.of_rows ? step : first) + lane;
        const int64_t pair = row * p.stride + column;
        const int to = p.of_rows ? lane : i, at = p.of_rows ? i : lane;
        shared.a[to][at] = row < rows ? p.a[pair] : 0;
        if constexpr (C::two) shared.e[to][at] = row < rows ? p.e[pair] : 0;
      }
      sync_block();  // and this one written
      float sum[kSide][kSide] = {};
#pragma unroll(C::light ? 2 : 1)
      for (int o = 0; o < kOthers; ++o) {
        const Quad a = *reinterpret_cast<const Quad*>(&shared.a[o][warp * kSide]);
        if (a.x[0] == 0 && a.x[1] == 0 && a.x[2] == 0 && a.x[3] == 0) continue;
        const Quad w = *reinterpret_cast<const Quad*>(&shared.other[o][lane * kSide]);
        Quad e{};
        if constexpr (C::two) e = *reinterpret_cast<const Quad*>(&shared.e[o][warp * kSide]);
#pragma unroll
        for (int i = 0; i < kSide; ++i)
#pragma unroll
          for (int j = 0; j < kSide; ++j)
            sum[i][j] += core.slope(x[i][j], w.x[j], a.x[i], e.x[i], static_cast<float>(k + j + 1));
      }
#pragma unroll
      for (int i = 0; i < kSide * kSide; ++i) total[i / kSide][i % kSide] += sum[i / kSide][i % kSide];
    }

#pragma unroll
    for (int i = 0; i < kSide; ++i) {
      if (own + i >= owns) break;
      const int64_t place = (p.of_rows ? head.id(own + i) : int64_t{head.first} + own + i) * of.d + k;
#pragma unroll
      for (int j = 0; j < kSide; ++j) {
        if (k + j >= of.d) break;
        const float g = total[i][j];
        if (!p.last) p.sum[sum_at(i, j)] = g;
        else if (of.type == Element::fp32 || p.wide) static_cast<float*>(p.out)[place + j] = g;
        else
          static_cast<uint16_t*>(p.out)[place + j] =
              static_cast<uint16_t>(of.type == Element::bf16 ? pack_bf16(g, 0) : pack_fp16(g, 0));
      }
    }
  }
}

}  // namespace lossk::head
