// Approximations of the special function unit, and what is rounded how.
#pragma once
#include "device/platform.h"

#ifndef __CUDACC__
#include "emulator/math.h"
#else
namespace lossk::device {

// PTX ISA: floating-point-instructions-ex2: 2^x, 2 ulp; subnormal results are 0.
LOSSK_DEVICE float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// floating-point-instructions-lg2: log2 x, absolute error 2^-22 near 1.
LOSSK_DEVICE float log2_approx(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// floating-point-instructions-rcp: 1 / x, 1 ulp.
LOSSK_DEVICE float reciprocal_approx(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// floating-point-instructions-tanh: relative error 2^-11, too much for a softcap in float32.
LOSSK_DEVICE float tanh_approx(float x) {
  float y;
  asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// floating-point-instructions-max: the other one where one is nan.
LOSSK_DEVICE float maximum(float a, float b) { return fmaxf(a, b); }

// floating-point-instructions-fma
LOSSK_DEVICE float multiply_add(float a, float b, float c) { return __fmaf_rn(a, b, c); }

// data-movement-and-conversion-instructions-cvt: two floats to a pair of bf16 (fp16), `low` in the low half; to
// nearest.
LOSSK_DEVICE uint32_t pack_bf16(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
LOSSK_DEVICE uint32_t pack_fp16(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

// The low 16 bits, a bf16 (fp16), as a float: exact.
LOSSK_DEVICE float widen_bf16(uint32_t bits) { return __uint_as_float(bits << 16); }
LOSSK_DEVICE float widen_fp16(uint32_t bits) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(static_cast<uint16_t>(bits)));
  return x;
}

// cvt.rna.tf32: to nearest, ties away; the low 13 bits of the result are 0.
LOSSK_DEVICE uint32_t to_tf32(float x) {
  uint32_t y;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
  return y;
}

}  // namespace lossk::device
#endif
