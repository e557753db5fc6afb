// Products for any GPU from sm_80 on: cp.async into a swizzled ring of tiles, ldmatrix, mma.sync.
#pragma once
#include <type_traits>

#include "device/mma.h"
#include "device/shared.h"
#include "device/tiles.h"
#include "device/warp.h"
#include "head/product/columns.cuh"
#include "head/product/config.h"
#include "head/product/slices.h"
#include "head/product/totals.cuh"

namespace lossk::head {

using namespace device;

template <class T, template <class, int> class Epilogue>
using MmaConfigOf = std::conditional_t<Epilogue<T, 1>::kManyRegisters || kSumsOften<T>, MmaNarrowConfig, MmaConfig>;

// Where 8 elements lie in a tile: of row `row`, steps depth .. depth + 7; or of step `depth`, rows row .. row + 7.
template <Along along>
LOSSK_DEVICE uint32_t element_address(uint32_t tile, int row, int depth) {
  if constexpr (along == Along::depth) return tile_address<kSwizzle>(tile, row, depth / 8);
  return tile_address<kSwizzle>(tile + row / kPanelRows * kPanelBytes, depth, row % kPanelRows / 8);
}

// Starts the copies of a plane's rows first.., steps depth.., into a tile. What is not there is zero.
// One address that grows, not one a copy: sixteen of them took the registers of what a persistent block must keep.
template <Along along, int rows, int threads>
LOSSK_DEVICE void load_tile(uint32_t tile, const Matrix& m, int plane, int first, int depth, int end_depth) {
  constexpr int kLine = (along == Along::depth ? kDepth : rows) / 8;  // copies for a line
  constexpr int kTogether = threads / kLine, kLines = along == Along::depth ? rows : kDepth;
  static_assert(threads % kLine == 0 && kLines % kTogether == 0);
  const int line = static_cast<int>(threadIdx.x) / kLine, place = static_cast<int>(threadIdx.x) % kLine * 8;
  const int first_line = along == Along::depth ? first : depth, first_place = along == Along::depth ? depth : first;
  int64_t from = (first_line + line) * m.stride + first_place + place + (plane ? plane * m.plane : 0);
#pragma unroll 4
  for (int i = 0; i < kLines; i += kTogether, from += kTogether * m.stride) {
    const int row = along == Along::depth ? line + i : place, step = along == Along::depth ? place : line + i;
    const bool there = first + row < m.rows && depth + step < end_depth;
    const auto* data = static_cast<const uint16_t*>(m.data);
    cp_async<16>(element_address<along>(tile, row, step), there ? data + from : data, there);
  }
}

// a's fragment of 16 rows and 16 steps, as mma_m16n8k16 wants it.
template <Along along>
LOSSK_DEVICE void load_a(uint32_t (&a)[4], uint32_t tile, int row, int depth) {
  const int lane = lane_index();
  if constexpr (along == Along::depth)
    ldmatrix(a, element_address<along>(tile, row + lane % 16, depth + lane / 16 * 8));
  else ldmatrix<true>(a, element_address<along>(tile, row + lane / 8 % 2 * 8, depth + lane % 8 + lane / 16 * 8));
}

// b's fragments of 16 columns and 16 steps: two for the first 8 columns, two for the others.
template <Along along>
LOSSK_DEVICE void load_b(uint32_t (&b)[4], uint32_t tile, int column, int depth) {
  const int lane = lane_index();
  if constexpr (along == Along::depth)
    ldmatrix(b, element_address<along>(tile, column + lane % 8 + lane / 16 * 8, depth + lane / 8 % 2 * 8));
  else ldmatrix<true>(b, element_address<along>(tile, column + lane / 16 * 8, depth + lane % 16));
}

// A step multiplies 64 of depth for one tile of columns; steps walk along depth, over the terms, to the next columns.
template <class Config, int terms>
struct MmaStep {
  int column, depth, term = 0, stage = 0;

  LOSSK_DEVICE void advance(const Depths& depths) {
    stage = stage + 1 == Config::kStages ? 0 : stage + 1;
    depth += kDepth;
    if (depth < depths.end) return;
    depth = depths.begin;
    if (++term < terms) return;
    term = 0;
    column += Config::kColumns;
  }
  LOSSK_DEVICE bool begins_a_tile(const Depths& depths) const { return depth == depths.begin && term == 0; }
};

// Epilogue: one thread's share of a tile's rows, each a slot. begin(slot, row) before a span,
// add<count>(slot, row, column, z) when a tile of its columns is complete, float& z(2 j + c) being that of column
// column + 8 j + c, end(slot, row, part) after it. All four lanes of a quad come with the same row.
template <
    class T, Along a_along, Along b_along, template <class, int> class Epilogue, class C = MmaConfigOf<T, Epilogue>>
__global__ void __launch_bounds__(C::kThreads, C::kMinBlocks) product_mma_sync(
    const __grid_constant__ Product p, const __grid_constant__ typename Epilogue<T, 1>::Params parameters) {
  using Element = typename Planes<T>::Element;
  using Step = MmaStep<C, Planes<T>::terms>;
  constexpr int kHigh = C::kWarpRows / 16, kWide = C::kWarpColumns / 8;
  LOSSK_SHARED(raw);
  auto& shared = *reinterpret_cast<C::Shared*>(align_shared<1024>(raw, shared_address(raw)));
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int warp_row = warp % (C::kRows / C::kWarpRows) * C::kWarpRows;
  const int warp_column = warp / (C::kRows / C::kWarpRows) * C::kWarpColumns;

  const int depth = p.depth_there.of(p.depth), columns = p.columns_there.of(p.b.rows);
  const int rows = depth == 0 && p.only_with_depth ? 0 : p.rows_there.of(p.a.rows);
  constexpr bool kSliced = Epilogue<T, 1>::kSliced;
  const int spans = ceil_div(columns, p.span);
  const TileOrder order{ceil_div(rows, C::kRows), kSliced ? spans * p.slices : spans, kBand};
  for (PersistentTiles work(order); work; ++work) {
    const Tile tile = *work;
    const Piece piece = piece_of<kSliced>(tile.column, spans, depth, p.slices);
    const int first_row = tile.row * C::kRows, first_column = piece.span * p.span;
    const int end_column = min(first_column + p.span, columns);
    const auto row_of = [&](int slot) { return first_row + warp_row + 8 * slot + lane / 4; };
    Epilogue<T, 2 * kHigh> epilogue(parameters);
    if constexpr (kSliced) epilogue.of_slice(piece.slice);
#pragma unroll
    for (int slot = 0; slot < 2 * kHigh; ++slot) epilogue.begin(slot, row_of(slot));

    Step next{first_column, piece.depths.begin};  // to load
    const auto load_next = [&] {
      if (next.column < end_column) {
        const uint32_t a = shared_address(shared.a[next.stage]), b = shared_address(shared.b[next.stage]);
        const int plane_a = plane_of_a<T>(next.term), plane_b = plane_of_b<T>(next.term);
        load_tile<a_along, C::kRows, C::kThreads>(a, p.a, plane_a, first_row, next.depth, piece.depths.end);
        load_tile<b_along, C::kColumns, C::kThreads>(b, p.b, plane_b, next.column, next.depth, piece.depths.end);
      }
      next.advance(piece.depths);
      cp_async_commit();  // also where there is nothing, so that groups count steps
    };
#pragma unroll
    for (int i = 0; i < C::kStages - 1; ++i) load_next();

    float d[kHigh][kWide][4] = {};
    const auto sum = [&](int i) -> float& { return d[i / (kWide * 4)][i / 4 % kWide][i % 4]; };
    Totals<T, kHigh * kWide * 4> totals;
    int steps = 0;  // of this tile
    for (Step step{first_column, piece.depths.begin}; step.column < end_column;) {
      cp_async_wait<C::kStages - 2>();
      sync_block();  // this step's stage has landed for all, and all are done with the one that is loaded next
      load_next();

      const uint32_t tile_a = shared_address(shared.a[step.stage]), tile_b = shared_address(shared.b[step.stage]);
#pragma unroll
      for (int k = 0; k < kDepth; k += 16) {
        uint32_t a[kHigh][4];
#pragma unroll
        for (int i = 0; i < kHigh; ++i) load_a<a_along>(a[i], tile_a, warp_row + 16 * i, k);
#pragma unroll
        for (int j = 0; j < kWide; j += 2) {
          uint32_t b[4];
          load_b<b_along>(b, tile_b, warp_column + 8 * j, k);
#pragma unroll
          for (int i = 0; i < kHigh; ++i) {
            mma_m16n8k16<Element>(d[i][j], a[i], {b[0], b[1]});
            mma_m16n8k16<Element>(d[i][j + 1], a[i], {b[2], b[3]});
          }
        }
      }

      const int tile_column = step.column, column = step.column + warp_column + lane % 4 * 2;
      step.advance(piece.depths);
      if constexpr (kSumsOften<T>)
        if (++steps % kStepsOfSum == 0) totals.take(sum);
      if (!step.begins_a_tile(piece.depths)) continue;  // the one before is not complete
      if constexpr (kSumsOften<T>) totals.give_back(sum);
      steps = 0;
#pragma unroll
      for (int slot = 0; slot < 2 * kHigh; ++slot)
        epilogue.template add<2 * kWide>(
            slot, row_of(slot), column, [&](int z) -> float& { return d[slot / 2][z / 2][slot % 2 * 2 + z % 2]; });
      if constexpr (Epilogue<T, 1>::kSumsColumns) {
        auto& sums = *reinterpret_cast<ColumnSums<C>*>(&shared + 1);
        sum_rows<2 * kHigh, 2 * kWide>(
            epilogue, sums.parts[warp_row / C::kWarpRows], warp_column + lane % 4 * 2, row_of,
            [&](int slot, int z) -> float& { return d[slot / 2][z / 2][slot % 2 * 2 + z % 2]; });
        sync_block();
        sum_parts<C::kThreads>(epilogue, sums, threadIdx.x, first_row, tile_column);
        // The next step's barrier keeps the next tile's away.
      }
#pragma unroll
      for (int i = 0; i < kHigh * kWide * 4; ++i) sum(i) = 0;
      totals.clear();
    }
    sync_block();  // every warp is done with the tiles, before the next span's are loaded
#pragma unroll
    for (int slot = 0; slot < 2 * kHigh; ++slot)
      epilogue.end(slot, row_of(slot), piece.span * C::kParts + warp_column / C::kWarpColumns);
  }
}

}  // namespace lossk::head
