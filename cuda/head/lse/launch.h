// What both launchers do before and after their kernel.
#pragma once
#include "device/launch.h"
#include "device/tiles.h"
#include "head/lse/config.h"

namespace lossk::head {

[[nodiscard]] inline bool valid(const LseParams& p, int columns) {
  const auto aligned = [](const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; };
  return p.n >= 0 && p.v >= 0 && p.d >= 0 && p.d % 8 == 0 && p.segment > 0 && p.segment % columns == 0 &&
         aligned(p.input) && aligned(p.weight);
}

// As many blocks as run at once, each with its share of the tiles.
[[nodiscard]] inline cudaError_t persistent_blocks(const LseParams& p, int rows, int per_multiprocessor, int* blocks) {
  const int64_t tiles = int64_t{ceil_div(p.n, rows)} * ceil_div(p.v, p.segment);
  const cudaError_t error = device::multiprocessors(blocks);
  *blocks = static_cast<int>(tiles < int64_t{*blocks} * per_multiprocessor ? tiles : *blocks * per_multiprocessor);
  return error;
}

// The last kernel of both.
[[nodiscard]] cudaError_t merge_segments(const LseParams& p, cudaStream_t stream);

}  // namespace lossk::head
