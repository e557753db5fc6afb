// Products for Hopper: one warp feeds a ring of tiles through TMA, two warpgroups multiply with wgmma. Two blocks of a
// cluster take tiles below one another: each loads half of the tile of b that both need, for both.
#pragma once
#include <type_traits>

#include "device/ring.h"
#include "device/tiles.h"
#include "device/tma.h"
#include "device/warp.h"
#include "device/wgmma.h"
#include "head/product/columns.cuh"
#include "head/product/config.h"
#include "head/product/slices.h"
#include "head/product/totals.cuh"

namespace lossk::head {

using namespace device;

// The copies of a plane's rows first.., steps depth... Boxes: 64 of depth by all the rows, or 64 rows by 64.
template <int planes, Along along>
LOSSK_DEVICE void load_boxes(
    unsigned char* tile, const TensorMap* map, Mbarrier* full, int plane, int first, int rows, int depth,
    uint16_t blocks = 0) {
  const auto load = [&](unsigned char* to, int x, int y) {
    if constexpr (planes > 1)
      blocks ? tma_multicast(to, map, full, x, y, plane, blocks) : tma_load(to, map, full, x, y, plane);
    else blocks ? tma_multicast(to, map, full, x, y, blocks) : tma_load(to, map, full, x, y);
  };
  if constexpr (along == Along::depth) load(tile, depth, first);
  else
    for (int row = 0; row < rows; row += kPanelRows) load(tile + row * kLineBytes, first + row, depth);
}

// What wgmma reads of a tile: rows row.., steps 0 to 15 of depth.
template <Along along>
LOSSK_DEVICE uint64_t descriptor(uint32_t tile, int row) {
  return matrix_descriptor(tile + row * kLineBytes, along == Along::depth ? 16 : kPanelBytes, 8 * kLineBytes, kSwizzle);
}
// And what a descriptor, whose address counts 16 bytes, becomes for a later stage of so many bytes and steps from k on.
template <Along along, int stage_bytes>
LOSSK_DEVICE uint64_t from(uint64_t descriptor, int stage, int k) {
  return descriptor + stage * (stage_bytes / 16) + k * (along == Along::depth ? 2 : kLineBytes) / 16;
}

constexpr int kSums = 1;  // named barrier of the multiplying warpgroups

template <class T, template <class, int> class Epilogue>
using WgmmaConfigOf =
    std::conditional_t<Epilogue<T, 1>::kManyRegisters || kSumsOften<T>, WgmmaNarrowConfig, WgmmaConfig>;

// Epilogue: as product_mma_sync's.
template <
    class T, Along a_along, Along b_along, template <class, int> class Epilogue, class C = WgmmaConfigOf<T, Epilogue>>
__global__ void __launch_bounds__(C::kThreads, 1) product_wgmma(
    const __grid_constant__ Product p, const __grid_constant__ TensorMap map_a, const __grid_constant__ TensorMap map_b,
    const __grid_constant__ typename Epilogue<T, 1>::Params parameters) {
  using P = Planes<T>;
  LOSSK_SHARED(raw);
  auto& shared = *reinterpret_cast<C::Shared*>(align_shared<1024>(raw, shared_address(raw)));
  // By shuffle the compiler knows that it is the same in all lanes: the loop below is then in uniform registers.
  const int warpgroup = shuffle(static_cast<int>(threadIdx.x) / kWarpgroup, 0);
  const int peers = cluster_size(), rank = cluster_rank();
  if (threadIdx.x == 0) shared.ring.init(peers * C::kConsumers * kWarpgroup / kWarp);  // each warp releases
  peers > 1 ? sync_cluster() : sync_block();

  const int depth = p.depth_there.of(p.depth), columns = p.columns_there.of(p.b.rows);
  const int rows = depth == 0 && p.only_with_depth ? 0 : p.rows_there.of(p.a.rows);
  constexpr bool kSliced = Epilogue<T, 1>::kSliced;
  const int spans = ceil_div(columns, p.span);
  const TileOrder order{ceil_div(rows, C::kRows * peers), kSliced ? spans * p.slices : spans, kBand / peers};
  RingTurn<C::kStages> turn;
  if (warpgroup == 0) {
    decrease_registers<C::kProducerRegisters>();
    if (threadIdx.x < kWarp && elect_one()) {
      const int share = C::kColumns / peers, first_of_share = rank * share;
      const uint16_t blocks = peers > 1 ? (1 << peers) - 1 : 0;
      for (PersistentTiles work(order, peers); work; ++work) {
        const Tile tile = *work;  // divisions, which would wait between a stage and its copies
        const Piece piece = piece_of<kSliced>(tile.column, spans, depth, p.slices);
        const int first_column = piece.span * p.span, end_column = min(first_column + p.span, columns);
        const bool together = p.begun && rank == 0;
        int part = 0;
        for (int column = first_column; column < end_column; column += C::kColumns) {
          if (together) work.stay_together(p.begun, part++, p.span / C::kColumns);
          for (int term = 0; term < P::terms; ++term)
            for (int k = piece.depths.begin; k < piece.depths.end; k += kDepth, ++turn) {
              Mbarrier* full = shared.ring.fill(turn, C::kStageBytes);
              load_boxes<P::planes, a_along>(
                  shared.a[turn.stage], &map_a, full, plane_of_a<T>(term), (tile.row * peers + rank) * C::kRows,
                  C::kRows, k);
              load_boxes<P::planes, b_along>(
                  shared.b[turn.stage] + first_of_share * kLineBytes, &map_b, full, plane_of_b<T>(term),
                  column + first_of_share, share, k, blocks);
            }
        }
        if (together) work.leave_out(p.begun, p.span / C::kColumns - part);
      }
    }
    return;
  }

  increase_registers<C::kConsumerRegisters>();
  const int lane = threadIdx.x % 32, own_row = 64 * (warpgroup - 1);
  const uint64_t all_a = descriptor<a_along>(shared_address(shared.a), own_row);
  const uint64_t all_b = descriptor<b_along>(shared_address(shared.b), 0);
  for (PersistentTiles work(order, peers); work; ++work) {
    const Tile tile = *work;
    const Piece piece = piece_of<kSliced>(tile.column, spans, depth, p.slices);
    const int first_column = piece.span * p.span, end_column = min(first_column + p.span, columns);
    const int first_row = (tile.row * peers + rank) * C::kRows;
    const int steps = shuffle(P::terms * piece.depths.steps(), 0);  // by shuffle: else ptxas counts them at every step
    const bool there = first_row < rows;  // else this block multiplies nothing, so that the other has its half of b
    const int row = first_row + own_row + threadIdx.x % kWarpgroup / 32 * 16 + lane / 4;  // and 8 below
    Epilogue<T, 2> epilogue(parameters);
    if constexpr (kSliced) epilogue.of_slice(piece.slice);

    for (int column = first_column; column < end_column; column += C::kColumns) {
      // Trap: if the first product were to overwrite them instead, ptxas would wait for every stage's products (C7517).
      float d[C::kColumns / 2] = {};
      const auto sum = [&](int i) -> float& { return d[i]; };
      Totals<T, C::kColumns / 2> totals;
      int step = 0;
      do {
        const int end = kSumsOften<T> ? min(step + kStepsOfSum, steps) : steps;
        for (; step < end; ++step, ++turn) {
          shared.ring.wait_full(turn);
          keep(d);
          wgmma_fence();
#pragma unroll
          for (int k = 0; k < kDepth; k += 16)
            wgmma<typename P::Element, C::kColumns, a_along == Along::rows, b_along == Along::rows>(
                d, from<a_along, sizeof(shared.a[0])>(all_a, turn.stage, k),
                from<b_along, sizeof(shared.b[0])>(all_b, turn.stage, k), true);
          wgmma_commit();
          keep(d);
          // The products before these are done, and with them their stage.
          wgmma_wait<1>();
          if (step > 0 && lane < peers) shared.ring.release(turn.before(), lane);
        }
        // What the epilogue reads is on its way while the last products are made.
        if (there && column == first_column && step == steps)
#pragma unroll
          for (int slot = 0; slot < 2; ++slot) epilogue.begin(slot, row + 8 * slot);
        wgmma_wait<0>();
        keep(d);
        if constexpr (kSumsOften<T>) totals.take(sum);
      } while (step < steps);
      if constexpr (kSumsOften<T>) totals.give_back(sum);
      if (steps > 0 && lane < peers) shared.ring.release(turn.before(), lane);
      if (!there) continue;

#pragma unroll
      for (int slot = 0; slot < 2; ++slot)
        epilogue.template add<C::kColumns / 4>(slot, row + 8 * slot, column + lane % 4 * 2, [&](int z) -> float& {
          return d[z / 2 * 4 + 2 * slot + z % 2];
        });
      if constexpr (Epilogue<T, 1>::kSumsColumns) {
        auto& sums = *reinterpret_cast<ColumnSums<C>*>(&shared + 1);
        barrier_sync(kSums, C::kMultiplyThreads);  // the last tile's are read
        sum_rows<2, C::kColumns / 4>(
            epilogue, sums.parts[threadIdx.x / kWarp - kWarpgroup / kWarp], lane % 4 * 2,
            [&](int slot) { return row + 8 * slot; },
            [&](int slot, int z) -> float& { return d[z / 2 * 4 + 2 * slot + z % 2]; });
        barrier_sync(kSums, C::kMultiplyThreads);
        sum_parts<C::kMultiplyThreads>(epilogue, sums, threadIdx.x - kWarpgroup, first_row, column);
      }
    }
    if (there)
#pragma unroll
      for (int slot = 0; slot < 2; ++slot) epilogue.end(slot, row + 8 * slot, piece.span);
  }
  if (peers > 1) sync_cluster();  // the other may still load into this block's stages, or release them
}

}  // namespace lossk::head
