// Between float32 and the 16 bits of a product's elements.
#pragma once
#include <cstring>
#include <type_traits>

#include "device/math.h"
#include "device/warp.h"

namespace lossk::head {

using namespace device;

// Two neighbours.
template <class T>
LOSSK_DEVICE uint32_t pack(float low, float high) {
  if constexpr (std::is_same_v<T, Fp16>) return pack_fp16(low, high);
  else return pack_bf16(low, high);
}

// The low one of two.
template <class T>
LOSSK_DEVICE float widen(uint32_t bits) {
  if constexpr (std::is_same_v<T, Fp16>) return widen_fp16(bits & 0xffff);
  else return widen_bf16(bits & 0xffff);
}

// The three bf16 whose sum is x. Trap: a rest after infinity would be nan, and the largest floats round to infinity.
LOSSK_DEVICE void split(float x, uint16_t (&parts)[3]) {
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    uint32_t own, bits = pack_bf16(x, 0) << 16;
    memcpy(&own, &x, 4);
    if ((bits & 0x7fffffff) == 0x7f800000) bits = own & 0xffff0000;
    parts[i] = static_cast<uint16_t>(bits >> 16);
    x = (bits & 0x7f800000) == 0x7f800000 ? 0 : x - widen_bf16(bits >> 16);
  }
}

struct alignas(16) Eight {  // neighbours of 16 bits, as pairs
  uint32_t pairs[4];
};

// Of four groups of 8 columns, each lane of a quad has one pair of each; lane q ends with all of the q-th. A quad then
// writes 64 bytes in a row where pair by pair it would write 16, half a sector of memory. By all lanes of the warp.
LOSSK_DEVICE void gather_group(Eight& x) {
  const int lane = lane_index();
#pragma unroll
  for (int step = 1; step < 4; step *= 2)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i & step) continue;
      const bool upper = lane & step;
      const uint32_t other = shuffle_xor(upper ? x.pairs[i] : x.pairs[i | step], step);
      if (upper) x.pairs[i] = other;
      else x.pairs[i | step] = other;
    }
}

}  // namespace lossk::head
