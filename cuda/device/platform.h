// What a kernel is written with. On a GPU these are nvcc's words; the emulator brings its own for a CPU.
#pragma once
#include <cstdint>

#ifdef __CUDACC__
#include <cuda.h>
#include <cuda_runtime.h>

#define LOSSK_DEVICE __device__ __forceinline__
// Dynamic shared memory, the only kind that kernels use. Trap: its start is aligned to 16 bytes and no more.
#define LOSSK_SHARED(name) extern __shared__ unsigned char name[]

namespace lossk::device {
using TensorMap = CUtensorMap;
}
#else
#include "emulator/platform.h"
#endif

namespace lossk::device {

// Bits only: no arithmetic happens in them.
struct Bf16 {
  uint16_t bits;
};
struct Fp16 {
  uint16_t bits;
};

constexpr int kWarp = 32, kWarpgroup = 128;

}  // namespace lossk::device
