// For any GPU from sm_80 on: cp.async into a swizzled ring of tiles, ldmatrix, mma.sync.
#pragma once
#include "device/mma.h"
#include "device/shared.h"
#include "device/tiles.h"
#include "head/lse/config.h"
#include "head/lse/row_lse.cuh"

namespace lossk::head {

// Starts the copies of rows first.. of a [count, d] matrix, features depth.., into a tile. What is not there is zero.
template <int rows, int threads>
LOSSK_DEVICE void load_tile(uint32_t tile, const void* matrix, int first, int count, int depth, int d) {
  constexpr int kChunks = kRowBytes / 16;
#pragma unroll
  for (int i = threadIdx.x; i < rows * kChunks; i += threads) {
    const int row = i / kChunks, chunk = i % kChunks, feature = depth + 8 * chunk;
    const bool there = first + row < count && feature < d;
    const int64_t offset = there ? int64_t{first + row} * d + feature : 0;
    cp_async<16>(tile_address<kSwizzle>(tile, row, chunk), static_cast<const uint16_t*>(matrix) + offset, there);
  }
}

// A step multiplies 64 features of one column tile; steps walk through the features, then to the next columns.
struct MmaStep {
  int column, depth = 0, stage = 0;

  LOSSK_DEVICE void advance(int d) {
    stage = stage + 1 == MmaConfig::kStages ? 0 : stage + 1;
    depth += kDepth;
    if (depth < d) return;
    depth = 0;
    column += MmaConfig::kColumns;
  }
};

template <class T>
__global__ void __launch_bounds__(MmaConfig::kThreads, MmaConfig::kMinBlocks)
    lse_mma_sync(const __grid_constant__ LseParams p) {
  using C = MmaConfig;
  constexpr int kHigh = C::kWarpRows / 16, kWide = C::kWarpColumns / 8;
  LOSSK_SHARED(raw);
  auto& shared = *reinterpret_cast<C::Shared*>(align_shared<1024>(raw, shared_address(raw)));
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int warp_row = warp % (C::kRows / C::kWarpRows) * C::kWarpRows;
  const int warp_column = warp / (C::kRows / C::kWarpRows) * C::kWarpColumns;

  const TileOrder order{ceil_div(p.n, C::kRows), ceil_div(p.v, p.segment), kBand};
  for (PersistentTiles work(order); work; ++work) {
    const int first_row = (*work).row * C::kRows, segment = (*work).column;
    const int end_column = min((segment + 1) * p.segment, p.v);
    const auto row_of = [&](int i, int half) { return first_row + warp_row + 16 * i + 8 * half + lane / 4; };
    Row rows[kHigh][2];
#pragma unroll
    for (int i = 0; i < kHigh; ++i)
#pragma unroll
      for (int half = 0; half < 2; ++half) rows[i][half].begin(p, row_of(i, half));

    MmaStep next{segment * p.segment};  // to load
    const auto load_next = [&] {
      if (next.column < end_column) {
        const uint32_t input = shared_address(shared.input[next.stage]);
        const uint32_t weight = shared_address(shared.weight[next.stage]);
        load_tile<C::kRows, C::kThreads>(input, p.input, first_row, p.n, next.depth, p.d);
        load_tile<C::kColumns, C::kThreads>(weight, p.weight, next.column, p.v, next.depth, p.d);
      }
      next.advance(p.d);
      cp_async_commit();  // also where there is nothing, so that groups count steps
    };
#pragma unroll
    for (int i = 0; i < C::kStages - 1; ++i) load_next();

    float d[kHigh][kWide][4] = {};
    for (MmaStep step{segment * p.segment}; step.column < end_column;) {
      cp_async_wait<C::kStages - 2>();
      sync_block();  // this step's stage has landed for all, and all are done with the one that is loaded next
      load_next();

      const uint32_t input = shared_address(shared.input[step.stage]);
      const uint32_t weight = shared_address(shared.weight[step.stage]);
#pragma unroll
      for (int k = 0; k < kDepth / 8; k += 2) {  // in chunks of 8 features
        uint32_t a[kHigh][4];
#pragma unroll
        for (int i = 0; i < kHigh; ++i)
          ldmatrix(a[i], tile_address<kSwizzle>(input, warp_row + 16 * i + lane % 16, k + lane / 16));
#pragma unroll
        for (int j = 0; j < kWide; j += 2) {
          uint32_t b[4];  // two tiles of 8 columns: for each, features k and k + 8
          const int column = warp_column + 8 * j + lane % 8 + lane / 16 * 8;
          ldmatrix(b, tile_address<kSwizzle>(weight, column, k + lane / 8 % 2));
#pragma unroll
          for (int i = 0; i < kHigh; ++i) {
            mma_m16n8k16<T>(d[i][j], a[i], {b[0], b[1]});
            mma_m16n8k16<T>(d[i][j + 1], a[i], {b[2], b[3]});
          }
        }
      }

      const int column = step.column + warp_column + lane % 4 * 2;
      step.advance(p.d);
      if (step.depth > 0) continue;  // the column tile's logits are not complete
#pragma unroll
      for (int i = 0; i < kHigh; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half)
          rows[i][half].add<2 * kWide>(
              p, row_of(i, half), column, [&](int z) -> float& { return d[i][z / 2][2 * half + z % 2]; });
#pragma unroll
        for (int j = 0; j < 4 * kWide; ++j) d[i][j / 4][j % 4] = 0;
      }
    }

    // Two warps have half of each row's columns; the first takes the other's and writes.
#pragma unroll
    for (int i = 0; i < kHigh; ++i)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        rows[i][half].found.merge_quad();
        if (warp_column && lane % 4 == 0)
          shared.other_half[row_of(i, half) - first_row] = rows[i][half].found.partial();
      }
    sync_block();  // also: every warp is done with the tiles
    if (warp_column == 0 && lane % 4 == 0)
#pragma unroll
      for (int i = 0; i < kHigh; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = row_of(i, half);
          if (row >= p.n) continue;
          rows[i][half].found.merge(shared.other_half[row - first_row]);
          p.partial[int64_t{segment} * p.n + row] = rows[i][half].found.partial();
        }
  }
}

}  // namespace lossk::head
