// What a kernel is written with. On a GPU these are nvcc's words; the emulator brings its own for a CPU.
//
// In this folder "PTX ISA: name" stands for https://docs.nvidia.com/cuda/parallel-thread-execution/#name.
#pragma once
#include <cstdint>

// A binding is compiled by a host's compiler, with the toolkit's headers.
#if defined(__CUDACC__) || defined(LOSSK_TOOLKIT)
#include <cuda.h>
#include <cuda_runtime.h>

#define LOSSK_DEVICE __device__ __forceinline__
#define LOSSK_HOST_DEVICE __host__ __device__ __forceinline__
// Dynamic shared memory, the only kind that kernels use. Trap: its start is aligned to 16 bytes and no more.
#define LOSSK_SHARED(name) extern __shared__ unsigned char name[]

namespace lossk::device {
using TensorMap = CUtensorMap;
enum class Element : int { bf16, fp16, fp32, tf32 };
LOSSK_HOST_DEVICE constexpr int element_bytes(Element e) { return e == Element::bf16 || e == Element::fp16 ? 2 : 4; }
}  // namespace lossk::device
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

template <class T>
struct ElementOf;
template <>
struct ElementOf<Bf16> {
  static constexpr Element value = Element::bf16;
};
template <>
struct ElementOf<Fp16> {
  static constexpr Element value = Element::fp16;
};
template <>
struct ElementOf<float> {
  static constexpr Element value = Element::fp32;
};

constexpr int kWarp = 32, kWarpgroup = 128;

}  // namespace lossk::device
