// Tile sizes, with their reasons. Shared memory and registers are checked here; what nvcc makes of them is in
// cuda/RESOURCES.md.
#pragma once
#include "common/math.h"
#include "device/ring.h"
#include "device/swizzle.h"
#include "head/lse/params.h"

namespace lossk::head {

constexpr int kSharedSlack = 1024 - 16;  // shared memory begins anywhere at 16 bytes, tiles at 1024

// A tile of rows times 64 features: 128 bytes a row, as wide as the widest swizzle.
constexpr int kDepth = 64, kRowBytes = 2 * kDepth;
constexpr auto kSwizzle = device::Swizzle::bytes128;

// mma.sync with cp.async. 4 warps, each a 64 x 64 tile: a fragment that ldmatrix brought serves 4 products. 128
// accumulators a thread leave room for two blocks on a multiprocessor, so that one's epilogue hides under the other's
// products.
struct MmaConfig {
  static constexpr int kRows = 128, kColumns = 128, kStages = 3;
  static constexpr int kWarpRows = 64, kWarpColumns = 64;
  static constexpr int kThreads = 32 * (kRows / kWarpRows) * (kColumns / kWarpColumns);
  static constexpr int kMinBlocks = 2;

  struct Shared {
    unsigned char input[kStages][kRows * kRowBytes];
    unsigned char weight[kStages][kColumns * kRowBytes];
    Partial other_half[kRows];  // what the second warp along columns found
  };
  static constexpr int kSharedBytes = sizeof(Shared) + kSharedSlack;
  // Compute capability 8.6 and 8.9 give a block 99 KiB; 8.0 and 9.0 have 163 and 227.
  static_assert(kSharedBytes <= 99 * 1024);
};

// TMA with wgmma. One warp loads, two warpgroups multiply 64 x 256 each, the widest product: per 64 features a stage of
// 48 KiB feeds 2 x 4 of them. 128 accumulators a thread of two warpgroups, so one block a multiprocessor.
struct WgmmaConfig {
  static constexpr int kConsumers = 2, kRows = 64 * kConsumers, kColumns = 256, kStages = 4;
  static constexpr int kThreads = 128 * (1 + kConsumers);
  static constexpr int kProducerRegisters = 40, kConsumerRegisters = 232;
  static_assert(128 * (kProducerRegisters + kConsumers * kConsumerRegisters) <= 64 * 1024);

  struct Shared {
    unsigned char input[kStages][kRows * kRowBytes];
    unsigned char weight[kStages][kColumns * kRowBytes];
    device::Ring<kStages> ring;
  };
  static constexpr int kStageBytes = (kRows + kColumns) * kRowBytes;
  static constexpr int kSharedBytes = sizeof(Shared) + kSharedSlack;
  static_assert(kSharedBytes <= 227 * 1024);
};

// Rows of tiles that neighbouring blocks take before they go on along the vocabulary: with 8 of 128 rows, a weight tile
// is read from L2 by 8 blocks, and the input rows stay there.
constexpr int kBand = 8;

}  // namespace lossk::head
