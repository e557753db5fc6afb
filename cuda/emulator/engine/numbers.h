// The floating-point formats of tensor cores, on a CPU.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>

#include "emulator/engine/calls.h"

namespace lossk::emulator {

inline float from_bf16(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

// As a float32 with the same bits the magnitude is 2^112 too small, subnormal numbers too.
inline float from_fp16(uint16_t bits) {
  const uint32_t magnitude = (bits & 0x7fffu) << 13, sign = (bits & 0x8000u) << 16;
  const bool finite = (bits & 0x7c00) != 0x7c00;
  const float x = finite ? std::bit_cast<float>(magnitude) * 0x1p112f : std::bit_cast<float>(magnitude | 0x7f800000);
  return std::bit_cast<float>(std::bit_cast<uint32_t>(x) | sign);
}

// To nearest, ties to even.
inline uint16_t to_bf16(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  if (std::isnan(x)) return 0x7fff;
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline uint16_t to_fp16(float x) {
  const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  const float magnitude = std::fabs(x);
  if (std::isnan(x)) return 0x7fff;
  if (magnitude >= 65520) return sign | 0x7c00;
  const int exponent = magnitude < 0x1p-14f ? -14 : std::ilogb(magnitude);
  const auto fraction = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 10 - exponent)));  // 1024 is implicit
  return static_cast<uint16_t>(sign | (fraction + ((exponent + 14) << 10)));
}

// What a tensor core reads of a register: two 16-bit numbers, or a float without its low 13 bits.
inline float part_of_register(uint32_t bits, int part, Element element) {
  const auto half = static_cast<uint16_t>(bits >> 16 * part);
  switch (element) {
    case Element::bf16: return from_bf16(half);
    case Element::fp16: return from_fp16(half);
    case Element::tf32: return std::bit_cast<float>(bits & ~0x1fffu);
    default: return std::bit_cast<float>(bits);
  }
}

// A swizzle exchanges 16-byte chunks: address bits 4 and up with those from 7 on, three of them for 128 bytes, two for
// 64, one for 32. Written apart from device/swizzle.h, whose mistakes it should not share.
inline uint32_t exchange_chunks(uint32_t address, int swizzle) {
  constexpr uint32_t kBits[] = {0, 7, 3, 1};
  return address ^ ((address >> 7 & kBits[swizzle]) << 4);
}

}  // namespace lossk::emulator
