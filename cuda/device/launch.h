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
// More than 48 KiB is asked for by name, and the driver's split with L1 may leave room for one block where two fit.
template <class... Parameters>
[[nodiscard]] cudaError_t allow_shared(void (*kernel)(Parameters...), int bytes) {
  if (bytes <= 48 * 1024) return cudaSuccess;
  const auto* function = reinterpret_cast<const void*>(kernel);
  const auto error = cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return error;
  return cudaFuncSetAttribute(function, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
}

template <class... Parameters>
[[nodiscard]] cudaError_t launch(void (*kernel)(Parameters...), const Launch& l, const Parameters&... parameters) {
  if (const auto error = allow_shared(kernel, l.shared_bytes); error != cudaSuccess) return error;
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

// How many blocks run at the same time: as many as fit on a multiprocessor, times those.
template <class... Parameters>
[[nodiscard]] cudaError_t resident_blocks(void (*kernel)(Parameters...), const Launch& l, int* count) {
  int each = 0;
  if (const auto error = allow_shared(kernel, l.shared_bytes); error != cudaSuccess) return error;
  if (const auto error = multiprocessors(count); error != cudaSuccess) return error;
  const auto error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, l.threads, l.shared_bytes);
  *count *= each;
  return error != cudaSuccess || each > 0 ? error : cudaErrorLaunchOutOfResources;
}
#else
template <class... Parameters>
[[nodiscard]] cudaError_t allow_shared(void (*)(Parameters...), int) {
  return cudaSuccess;
}

template <class... Parameters>
[[nodiscard]] cudaError_t launch(void (*kernel)(Parameters...), const Launch& l, const Parameters&... parameters) {
  return emulator::launch(kernel, l.blocks, l.threads, l.shared_bytes, parameters...);
}

[[nodiscard]] inline cudaError_t multiprocessors(int* count) {
  *count = emulator::schedule.multiprocessors;
  return cudaSuccess;
}

template <class... Parameters>
[[nodiscard]] cudaError_t resident_blocks(void (*)(Parameters...), const Launch&, int* count) {
  return multiprocessors(count);
}
#endif

}  // namespace lossk::device
