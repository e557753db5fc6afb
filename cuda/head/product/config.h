// Tile sizes of the products, with their reasons. Shared memory and registers are checked here; what nvcc makes of them
// is in cuda/RESOURCES.md.
#pragma once
#include "common/math.h"
#include "device/ring.h"
#include "device/swizzle.h"
#include "head/product/matrix.h"

namespace lossk::head {

constexpr int kSharedSlack = 1024 - 16;  // shared memory begins anywhere at 16 bytes, tiles at 1024

// A tile of rows times kDepth of depth. Contiguous along depth: 128 bytes a row, as wide as the widest swizzle. Along
// rows: panels of 64 rows, 128 bytes for each step of depth.
constexpr int kLineBytes = 2 * kDepth, kPanelRows = 64, kPanelBytes = kDepth * kLineBytes;
static_assert(kPanelBytes == kPanelRows * kLineBytes);  // so both have row r at r lines, where a panel begins with r
constexpr auto kSwizzle = device::Swizzle::bytes128;

// mma.sync with cp.async. 4 warps, each a 64 x 64 tile: a fragment that ldmatrix brought serves 4 products. 128
// accumulators a thread and 98 KiB leave room for two blocks on a multiprocessor of compute capability 9.0 and 10.0, so
// that one's epilogue hides under the other's products; on 8.x shared memory holds one (two stages would let 8.0 hold
// two: not measured).
template <int warp_rows, int min_blocks>
struct MmaTiles {
  static constexpr int kRows = 128, kColumns = 128, kStages = 3;
  static constexpr int kWarpRows = warp_rows, kWarpColumns = 64;
  static constexpr int kThreads = 32 * (kRows / kWarpRows) * (kColumns / kWarpColumns);
  static constexpr int kMinBlocks = min_blocks;
  static constexpr int kParts = kColumns / kWarpColumns;  // threads that have some of a row's columns
  static constexpr int kRowParts = kRows / kWarpRows;     // warps that have some of a column's rows

  struct Shared {
    unsigned char a[kStages][kRows * kLineBytes];
    unsigned char b[kStages][kColumns * kLineBytes];
  };
  static constexpr int kSharedBytes = sizeof(Shared) + kSharedSlack;
  // Compute capability 8.6 and 8.9 give a block 99 KiB; 8.0 and 9.0 have 163 and 227.
  static constexpr int kMostSharedBytes = 99 * 1024;
};
struct MmaConfig : MmaTiles<64, 2> {};
// For an epilogue that keeps much of each row (kManyRegisters): half the rows and accumulators a thread, one block.
struct MmaNarrowConfig : MmaTiles<32, 1> {};

// TMA with wgmma. One warp loads, two warpgroups multiply 64 x 256 each, the widest product: per 64 of depth a stage of
// 48 KiB feeds 2 x 4 of them. 128 accumulators a thread of two warpgroups, so one block a multiprocessor.
template <int columns, int stages>
struct WgmmaTiles {
  static constexpr int kConsumers = 2, kRows = 64 * kConsumers, kColumns = columns, kStages = stages;
  static constexpr int kThreads = 128 * (1 + kConsumers);
  static constexpr int kProducerRegisters = 40, kConsumerRegisters = 232;
  static_assert(128 * (kProducerRegisters + kConsumers * kConsumerRegisters) <= 64 * 1024);
  static constexpr int kParts = 1, kRowParts = kRows / 16;
  static constexpr int kMultiplyThreads = 128 * kConsumers;

  struct Shared {
    unsigned char a[kStages][kRows * kLineBytes];
    unsigned char b[kStages][kColumns * kLineBytes];
    device::Ring<kStages> ring;
  };
  static constexpr int kStageBytes = (kRows + kColumns) * kLineBytes;
  static constexpr int kSharedBytes = sizeof(Shared) + kSharedSlack, kMostSharedBytes = 227 * 1024;
};
struct WgmmaConfig : WgmmaTiles<256, 4> {};
struct WgmmaNarrowConfig : WgmmaTiles<128, 6> {};  // kManyRegisters: half the accumulators

// Tensor cores cut what they add off below the larger one's last bits, so a long sum drifts towards zero: 2e-6 of its
// size at a depth of 2048, 9e-6 at 8192 (simulated). That is nothing beside 16 bits, but much beside 24: there the sums
// move every few steps to registers that round (totals.cuh), 2.4e-7 at any depth. Those take the room of wide tiles.
template <class T>
constexpr bool kSumsOften = Planes<T>::planes > 1;
constexpr int kStepsOfSum = 4;

// Rows of tiles that neighbouring blocks take before they go on along the columns: with 16 of 128 rows, a tile of b is
// read from L2 by 16 blocks, or by 8 pairs of them, one of a by 8 or 16. 132 blocks then read the least there is.
constexpr int kBand = 16;

// Blocks of a cluster (Hopper), which share each tile of b: of the 48 KiB that a stage takes they read 32 from L2. 132
// multiprocessors that each take 48 in 1024 clocks would want 6.2 KB a clock; L2 is said to have 5.1. Not where an odd
// row of tiles leaves the second block of a pair much to do for nothing.
#ifndef LOSSK_MANY_TILE_ROWS  // tests want such rows where there are few
#define LOSSK_MANY_TILE_ROWS 16
#endif
constexpr int kPair = 2;
constexpr int blocks_of_cluster(int tile_rows) {
  return tile_rows % kPair == 0 || tile_rows >= LOSSK_MANY_TILE_ROWS ? kPair : 1;
}

}  // namespace lossk::head
