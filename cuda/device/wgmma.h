// wgmma (sm_90a): a warpgroup multiplies tiles that tensor cores read from shared memory by themselves.
//
// d [64, N] (+)= a [64, 16] b [N, 16]^T. Warp w of the four has rows 16 w + lane / 4 and 8 below: d[4 j], d[4 j + 1]
// are (row, 8 j + 2 (lane % 4)) and the next column, d[4 j + 2], d[4 j + 3] the same in row + 8.
//
// Between wgmma_fence and the wait that ends a group, its accumulators belong to the tensor cores: no one may read or
// write them, nor may the compiler move such a read there, which keep() prevents.
#pragma once
#include <type_traits>

#include "device/shared.h"
#include "device/swizzle.h"

namespace lossk::device {

// PTX ISA: asynchronous-warpgroup-level-matrix-shared-memory-layout. Where a tile lies; addresses and distances in
// bytes. Rows along K (K-major) under a swizzle: `outer` is from 8 rows to the next 8 (8 times the swizzle's width
// where they are dense), `inner` is not used. The next 16 along K begin 32 bytes further, inside the swizzle's width.
LOSSK_HOST_DEVICE constexpr uint64_t matrix_descriptor(
    uint32_t start, uint32_t inner, uint32_t outer, Swizzle swizzle) {
  return uint64_t((start & 0x3ffff) >> 4) | uint64_t((inner & 0x3ffff) >> 4) << 16 |
         uint64_t((outer & 0x3ffff) >> 4) << 32 | uint64_t(swizzle) << 62;
}

}  // namespace lossk::device

#ifndef __CUDACC__
#include "emulator/wgmma.h"
#else
namespace lossk::device {

// asynchronous-warpgroup-level-matrix-async-proxy: before the first wgmma, and after any touch of its registers.
LOSSK_DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
LOSSK_DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Until at most `groups` are under way.
template <int groups>
LOSSK_DEVICE void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(groups) : "memory");
}

// The registers are what they are here: the compiler moves no use of them past this point.
template <int count>
LOSSK_DEVICE void keep(float (&d)[count]) {
#pragma unroll
  for (int i = 0; i < count; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// asynchronous-warpgroup-level-matrix-instructions-wgmma-mma-async. a is a descriptor, or four registers that hold what
// mma_m16n8k16's a does for the warp's 16 rows. transposed: the tile's rows run along M (N) instead of K.
template <int N>
struct Wgmma;

#define LOSSK_D0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define LOSSK_D1 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define LOSSK_D2 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define LOSSK_D3 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define LOSSK_D4 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define LOSSK_D5 ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define LOSSK_D6 ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111"
#define LOSSK_D7 ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define LOSSK_4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define LOSSK_16(i) LOSSK_4(i), LOSSK_4(i + 4), LOSSK_4(i + 8), LOSSK_4(i + 12)

#define LOSSK_FROM_SHARED(N, type, D, o0, o1, o2, o3, o4, ...)                                             \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #o2                                                    \
               ", 0;\n"                                                                                    \
               "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." type "." type " {" D "}, %" #o0 ", %" #o1 \
               ", p, 1, 1, %" #o3 ", %" #o4 ";\n}"                                                         \
               : __VA_ARGS__                                                                               \
               : "l"(a), "l"(b), "r"(int(accumulate)), "n"(int(a_transposed)), "n"(int(b_transposed)))
#define LOSSK_FROM_REGISTERS(N, type, D, o0, o1, o2, o3, o4, o5, o6, ...)                                             \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #o5                                                               \
               ", 0;\n"                                                                                               \
               "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." type "." type " {" D "}, {%" #o0 ", %" #o1 ", %" #o2 \
               ", %" #o3 "}, %" #o4 ", p, 1, 1, %" #o6 ";\n}"                                                         \
               : __VA_ARGS__                                                                                          \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(accumulate)), "n"(int(b_transposed)))

#define LOSSK_WGMMA(N, D, o0, o1, o2, o3, o4, o5, o6, ...)                                                     \
  template <>                                                                                                  \
  struct Wgmma<N> {                                                                                            \
    template <class T, bool a_transposed, bool b_transposed>                                                   \
    LOSSK_DEVICE static void run(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate) {                 \
      if constexpr (std::is_same_v<T, Bf16>) LOSSK_FROM_SHARED(N, "bf16", D, o0, o1, o2, o3, o4, __VA_ARGS__); \
      else LOSSK_FROM_SHARED(N, "f16", D, o0, o1, o2, o3, o4, __VA_ARGS__);                                    \
    }                                                                                                          \
    template <class T, bool b_transposed>                                                                      \
    LOSSK_DEVICE static void run(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate) {     \
      if constexpr (std::is_same_v<T, Bf16>)                                                                   \
        LOSSK_FROM_REGISTERS(N, "bf16", D, o0, o1, o2, o3, o4, o5, o6, __VA_ARGS__);                           \
      else LOSSK_FROM_REGISTERS(N, "f16", D, o0, o1, o2, o3, o4, o5, o6, __VA_ARGS__);                         \
    }                                                                                                          \
  };

#define LOSSK_32 LOSSK_16(0), LOSSK_16(16)
#define LOSSK_64 LOSSK_32, LOSSK_16(32), LOSSK_16(48)
#define LOSSK_96 LOSSK_64, LOSSK_16(64), LOSSK_16(80)
LOSSK_WGMMA(64, LOSSK_D0 LOSSK_D1, 32, 33, 34, 35, 36, 37, 38, LOSSK_32)
LOSSK_WGMMA(96, LOSSK_D0 LOSSK_D1 LOSSK_D2, 48, 49, 50, 51, 52, 53, 54, LOSSK_32, LOSSK_16(32))
LOSSK_WGMMA(128, LOSSK_D0 LOSSK_D1 LOSSK_D2 LOSSK_D3, 64, 65, 66, 67, 68, 69, 70, LOSSK_64)
LOSSK_WGMMA(160, LOSSK_D0 LOSSK_D1 LOSSK_D2 LOSSK_D3 LOSSK_D4, 80, 81, 82, 83, 84, 85, 86, LOSSK_64, LOSSK_16(64))
LOSSK_WGMMA(192, LOSSK_D0 LOSSK_D1 LOSSK_D2 LOSSK_D3 LOSSK_D4 LOSSK_D5, 96, 97, 98, 99, 100, 101, 102, LOSSK_96)
LOSSK_WGMMA(
    256, LOSSK_D0 LOSSK_D1 LOSSK_D2 LOSSK_D3 LOSSK_D4 LOSSK_D5 LOSSK_D6 LOSSK_D7, 128, 129, 130, 131, 132, 133, 134,
    LOSSK_96, LOSSK_16(96), LOSSK_16(112))

template <class T, int N, bool a_transposed = false, bool b_transposed = false>
LOSSK_DEVICE void wgmma(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate) {
  Wgmma<N>::template run<T, a_transposed, b_transposed>(d, a, b, accumulate);
}
template <class T, int N, bool b_transposed = false>
LOSSK_DEVICE void wgmma(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
  Wgmma<N>::template run<T, b_transposed>(d, a, b, accumulate);
}

}  // namespace lossk::device
#endif
