// device/math.h on a CPU: the same values but for the last bits, which a kernel may not rely on.
#pragma once
#include <bit>

#include "device/platform.h"
#include "emulator/engine/numbers.h"

namespace lossk::device {

LOSSK_DEVICE float flush_subnormal(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.f, x) : x; }

LOSSK_DEVICE float exp2_approx(float x) { return flush_subnormal(std::exp2(flush_subnormal(x))); }
LOSSK_DEVICE float log2_approx(float x) { return std::log2(flush_subnormal(x)); }
LOSSK_DEVICE float reciprocal_approx(float x) { return flush_subnormal(1 / flush_subnormal(x)); }
LOSSK_DEVICE float tanh_approx(float x) { return std::tanh(x); }
LOSSK_DEVICE float maximum(float a, float b) { return std::fmax(a, b); }
LOSSK_DEVICE float multiply_add(float a, float b, float c) { return std::fma(a, b, c); }

LOSSK_DEVICE uint32_t pack_bf16(float low, float high) {
  return emulator::to_bf16(low) | uint32_t{emulator::to_bf16(high)} << 16;
}
LOSSK_DEVICE uint32_t pack_fp16(float low, float high) {
  return emulator::to_fp16(low) | uint32_t{emulator::to_fp16(high)} << 16;
}
LOSSK_DEVICE float widen_bf16(uint32_t bits) { return std::bit_cast<float>(bits << 16); }
LOSSK_DEVICE float widen_fp16(uint32_t bits) { return emulator::from_fp16(static_cast<uint16_t>(bits)); }
LOSSK_DEVICE uint32_t to_tf32(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  return std::isfinite(x) ? (bits + 0x1000) & ~0x1fffu : bits;
}

}  // namespace lossk::device
