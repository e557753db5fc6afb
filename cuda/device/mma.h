// mma.sync: one warp multiplies small tiles in registers, d += a b^T with a [16, K] and b [8, K] row-major.
//
// With g = lane / 4 and t = lane % 4, pairs of 16-bit elements (k even in the low half):
//   a[0] (g, 2t)  a[1] (g + 8, 2t)  a[2] (g, 2t + 8)  a[3] (g + 8, 2t + 8)     b[0] (g, 2t)  b[1] (g, 2t + 8)
//   d[0] (g, 2t)  d[1] (g, 2t + 1)  d[2] (g + 8, 2t)  d[3] (g + 8, 2t + 1)
// which is how ldmatrix fills registers. For tf32 (K = 8) the elements are single: k = t and t + 4.
#pragma once
#include "device/platform.h"

#ifndef __CUDACC__
#include "emulator/mma.h"
#else
namespace lossk::device {

// PTX ISA: warp-level-matrix-instructions-mma
template <class T>
LOSSK_DEVICE void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);

#define LOSSK_MMA(instruction)                                                                \
  asm volatile(instruction " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                               \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
template <>
LOSSK_DEVICE void mma_m16n8k16<Bf16>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  LOSSK_MMA("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32");
}
template <>
LOSSK_DEVICE void mma_m16n8k16<Fp16>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  LOSSK_MMA("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32");
}
LOSSK_DEVICE void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  LOSSK_MMA("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32");
}
#undef LOSSK_MMA

}  // namespace lossk::device
#endif

#include "device/math.h"

namespace lossk::device {

// float32 as it is, without tensor cores: d += a b^T, one FFMA an element.
template <int M, int N>
LOSSK_DEVICE void multiply_add_outer(float (&d)[M][N], const float (&a)[M], const float (&b)[N]) {
#pragma unroll
  for (int i = 0; i < M; ++i)
#pragma unroll
    for (int j = 0; j < N; ++j) d[i][j] = multiply_add(a[i], b[j], d[i][j]);
}

}  // namespace lossk::device
