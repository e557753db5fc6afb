// A kept logit: how far it lies below its reference, as a float of 16 bits: 4 of the exponent, 12 of the mantissa.
#pragma once
#include <cstring>

#include "device/math.h"

namespace lossk::head {

using namespace device;

// Of what this multiplies, float32 has four bits of exponent left for 2^-9 up to 64, and below that equal steps. fp16,
// with a sign and exponents for what nobody needs, would have a fourth of the digits.
constexpr float kBelowScale = 0x1p-117f;
constexpr int kBelowShift = 11;  // of the mantissa's 23 bits, those that are left off

// In the low half. Trap: what is no number, or more than 64, becomes 64; the reference says so where it is -inf or nan.
LOSSK_DEVICE uint32_t code_below(float reference, float z) {
  const float below = multiply_add(z, -kBelowScale, reference * kBelowScale);
  uint32_t bits;
  memcpy(&bits, &below, 4);
  constexpr uint32_t kHalf = 1u << (kBelowShift - 1), kMost = (1u << (16 + kBelowShift)) - 1;
  return min(bits + kHalf, kMost) >> kBelowShift;
}

LOSSK_DEVICE float logit_at(float reference, uint32_t code) {
  const uint32_t bits = code << kBelowShift;
  float below;
  memcpy(&below, &bits, 4);
  return multiply_add(below, -1 / kBelowScale, reference);
}

}  // namespace lossk::head
