// For Hopper: one warp feeds a ring of tiles through TMA, two warpgroups multiply with wgmma and sum up.
#pragma once
#include "device/ring.h"
#include "device/tiles.h"
#include "device/tma.h"
#include "device/wgmma.h"
#include "head/lse/config.h"
#include "head/lse/row_lse.cuh"

namespace lossk::head {

// input [N, D] in boxes of 128 rows, weight [V, D] in boxes of 256, both 64 features wide.
template <class T>
__global__ void __launch_bounds__(WgmmaConfig::kThreads, 1) lse_wgmma(
    const __grid_constant__ LseParams p, const __grid_constant__ TensorMap input,
    const __grid_constant__ TensorMap weight) {
  using C = WgmmaConfig;
  LOSSK_SHARED(raw);
  auto& shared = *reinterpret_cast<C::Shared*>(align_shared<1024>(raw, shared_address(raw)));
  const int warpgroup = threadIdx.x / kWarpgroup;
  const int depths = ceil_div(p.d, kDepth);
  if (threadIdx.x == 0) shared.ring.init(C::kConsumers * kWarpgroup / kWarp);  // each warp releases
  sync_block();

  const TileOrder order{ceil_div(p.n, C::kRows), ceil_div(p.v, p.segment), kBand};
  RingTurn<C::kStages> turn;
  if (warpgroup == 0) {
    decrease_registers<C::kProducerRegisters>();
    if (threadIdx.x < kWarp && elect_one()) {
      for (PersistentTiles work(order); work; ++work) {
        const int first_column = (*work).column * p.segment, end_column = min(first_column + p.segment, p.v);
        for (int column = first_column; column < end_column; column += C::kColumns)
          for (int i = 0; i < depths; ++i, ++turn) {
            Mbarrier* full = shared.ring.fill(turn, C::kStageBytes);
            tma_load(shared.input[turn.stage], &input, full, i * kDepth, (*work).row * C::kRows);
            tma_load(shared.weight[turn.stage], &weight, full, i * kDepth, column);
          }
      }
    }
    return;
  }

  increase_registers<C::kConsumerRegisters>();
  const int lane = threadIdx.x % 32, own_row = 64 * (warpgroup - 1);
  for (PersistentTiles work(order); work; ++work) {
    const int first_row = (*work).row * C::kRows, segment = (*work).column;
    const int first_column = segment * p.segment, end_column = min(first_column + p.segment, p.v);
    const int row = first_row + own_row + threadIdx.x % kWarpgroup / 32 * 16 + lane / 4;  // and the one 8 below
    Row rows[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) rows[half].begin(p, row + 8 * half);

    for (int column = first_column; column < end_column; column += C::kColumns) {
      float d[C::kColumns / 2];
      for (int i = 0; i < depths; ++i, ++turn) {
        shared.ring.wait_full(turn);
        const uint32_t a = shared_address(shared.input[turn.stage]) + own_row * kRowBytes;
        const uint32_t b = shared_address(shared.weight[turn.stage]);
        keep(d);
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < kDepth; k += 16)
          wgmma<T, C::kColumns>(
              d, matrix_descriptor(a + 2 * k, 16, 8 * kRowBytes, kSwizzle),
              matrix_descriptor(b + 2 * k, 16, 8 * kRowBytes, kSwizzle), i > 0 || k > 0);
        wgmma_commit();
        keep(d);
        // The products before these are done, and with them their stage.
        wgmma_wait<1>();
        if (i > 0 && lane == 0) shared.ring.release(turn.before());
      }
      wgmma_wait<0>();
      keep(d);
      if (lane == 0) shared.ring.release(turn.before());

#pragma unroll
      for (int half = 0; half < 2; ++half)
        rows[half].add<C::kColumns / 4>(
            p, row + 8 * half, column + lane % 4 * 2, [&](int z) -> float& { return d[z / 2 * 4 + 2 * half + z % 2]; });
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      rows[half].found.merge_quad();
      if (row + 8 * half < p.n && lane % 4 == 0)
        p.partial[int64_t{segment} * p.n + row + 8 * half] = rows[half].found.partial();
    }
  }
}

}  // namespace lossk::head
