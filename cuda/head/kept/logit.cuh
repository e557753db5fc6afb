// A kept logit: how far it lies below its reference, as a float of 16 bits: 4 of the exponent, 12 of the mantissa.
#pragma once
#include <cmath>
#include <cstring>

#include "device/math.h"

namespace lossk::head {

using namespace device;

// Of what this multiplies, float32 has four bits of exponent left for 2^-9 up to 64, and below that equal steps. fp16,
// with a sign and exponents for what nobody needs, would have a fourth of the digits.
constexpr float kBelowScale = 0x1p-117f;
constexpr int kBelowShift = 11;  // of the mantissa's 23 bits, those that are left off

constexpr uint32_t kNothing = 0xffff;  // 64 nats below, or more: a probability of 0; and what is no number

// In the low half. Trap: the difference first. Of two scaled numbers that are the same a fused one would be -0, where
// scaling rounds: nothing.
LOSSK_DEVICE uint32_t code_below(float reference, float z) {
  const float below = (reference - z) * kBelowScale;
  uint32_t bits;
  memcpy(&bits, &below, 4);
  constexpr uint32_t kHalf = 1u << (kBelowShift - 1), kMost = kNothing << kBelowShift;
  return min(bits + kHalf, kMost) >> kBelowShift;
}

LOSSK_DEVICE float logit_at(float reference, uint32_t code) {
  const uint32_t bits = code << kBelowShift;
  float below;
  memcpy(&below, &bits, 4);
  return code == kNothing ? -INFINITY : multiply_add(below, -1 / kBelowScale, reference);
}

}  // namespace lossk::head
