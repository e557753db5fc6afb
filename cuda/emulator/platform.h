// nvcc's words for a CPU, so that a kernel's source compiles with g++ and runs in the emulator.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "emulator/engine/calls.h"

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __launch_bounds__(...)

// Always inline: an engine call's return address then lies in the kernel, which is how reports find its line.
#define LOSSK_DEVICE [[gnu::always_inline]] inline
#define LOSSK_HOST_DEVICE [[gnu::always_inline]] inline
#define LOSSK_SHARED(name) unsigned char* const name = ::lossk::emulator::dynamic_shared()

using std::max;
using std::min;
using dim3 = ::lossk::emulator::Dim3;
using ::lossk::emulator::blockDim;
using ::lossk::emulator::blockIdx;
using ::lossk::emulator::gridDim;
using ::lossk::emulator::threadIdx;

using cudaStream_t = void*;
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0, cudaErrorInvalidValue = 1;

namespace lossk::device {
using emulator::Element;
using emulator::element_bytes;
using emulator::TensorMap;
}  // namespace lossk::device
