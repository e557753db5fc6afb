// From the host: a kernel's launch, and how many blocks the GPU runs at once.
#pragma once
#include "device/platform.h"

#ifndef __CUDACC__
#include "emulator/launch.h"
#endif

namespace lossk::device {

struct Launch {
  dim3 blocks;
  int threads;
  int shared_bytes;
  cudaStream_t stream;
  bool may_start_early = false;  // before the stream's last kernel ends, which then says wait_for_grids
};

#ifdef __CUDACC__
template <class... Parameters>
[[nodiscard]] cudaError_t launch(void (*kernel)(Parameters...), const Launch& l, const Parameters&... parameters) {
  const auto error = cudaFuncSetAttribute(
      reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, l.shared_bytes);
  if (error != cudaSuccess) return error;
  cudaLaunchConfig_t config{};
  config.gridDim = l.blocks;
  config.blockDim = dim3(l.threads);
  config.dynamicSmemBytes = l.shared_bytes;
  config.stream = l.stream;
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &early;
  config.numAttrs = l.may_start_early;
  return cudaLaunchKernelEx(&config, kernel, parameters...);
}

[[nodiscard]] inline cudaError_t multiprocessors(int* count) {
  int device = 0;
  const auto error = cudaGetDevice(&device);
  return error != cudaSuccess ? error : cudaDeviceGetAttribute(count, cudaDevAttrMultiProcessorCount, device);
}
#else
template <class... Parameters>
[[nodiscard]] cudaError_t launch(void (*kernel)(Parameters...), const Launch& l, const Parameters&... parameters) {
  return emulator::launch(kernel, l.blocks, l.threads, l.shared_bytes, parameters...);
}

[[nodiscard]] inline cudaError_t multiprocessors(int* count) {
  *count = emulator::schedule.multiprocessors;
  return cudaSuccess;
}
#endif

}  // namespace lossk::device
