// Swizzles: where a row-major tile's 16-byte chunks lie so that a column of them is free of bank conflicts.
//
// The chunk's place in its line is exchanged by XOR with the line's number, over 128, 64 or 32 bytes. TMA writes so,
// wgmma reads so, and ldmatrix is free of conflicts. Trap: it acts on absolute shared addresses, so a tile begins at a
// multiple of swizzle_alignment.
#pragma once
#include "device/platform.h"

namespace lossk::device {

enum class Swizzle : int { none = 0, bytes128 = 1, bytes64 = 2, bytes32 = 3 };  // as a matrix descriptor numbers them

LOSSK_HOST_DEVICE constexpr int swizzle_width(Swizzle s) {
  return s == Swizzle::none ? 16 : 256 >> static_cast<int>(s);
}
LOSSK_HOST_DEVICE constexpr int swizzle_alignment(Swizzle s) { return s == Swizzle::none ? 128 : 8 * swizzle_width(s); }

// PTX ISA: tensor-swizzling-modes. From a dense address to where the chunk lies.
LOSSK_HOST_DEVICE constexpr uint32_t swizzled(uint32_t address, Swizzle s) {
  const uint32_t lines = swizzle_width(s) / 16 - 1;
  return address ^ ((address >> 7 & lines) << 4);
}

// Address of 16-byte chunk `chunk` of row `row`, in an aligned tile whose rows are as long as the swizzle is wide: what
// `swizzled` gives, but known to depend on the row's last bits alone, which leaves a loop over tiles an addition.
template <Swizzle s>
LOSSK_HOST_DEVICE constexpr uint32_t tile_address(uint32_t tile, int row, int chunk) {
  constexpr uint32_t kWidth = swizzle_width(s);
  const uint32_t offset = row * kWidth;
  return tile + offset + ((chunk ^ offset / 128 % (kWidth / 16)) << 4);
}

// The first multiple of `alignment` in shared memory from p on. Ask for alignment - 16 bytes more than needed.
template <int alignment>
LOSSK_DEVICE unsigned char* align_shared(unsigned char* p, uint32_t address) {
  static_assert((alignment & (alignment - 1)) == 0);
  return p + (-address & (alignment - 1));
}

}  // namespace lossk::device
