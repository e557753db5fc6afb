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
  int cluster = 1;               // blocks in each, of which `blocks.x` is a multiple; more than 1 on sm_90 and later
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

// What the runtime calls a launch. Not to be copied: it points into itself.
struct Configuration : cudaLaunchConfig_t {
  explicit Configuration(const Launch& l) : cudaLaunchConfig_t{} {
    gridDim = l.blocks;
    blockDim = dim3(l.threads);
    dynamicSmemBytes = l.shared_bytes;
    stream = l.stream;
    attrs = attributes;
    if (l.may_start_early) {
      attributes[numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
      attributes[numAttrs++].val.programmaticStreamSerializationAllowed = 1;
    }
    if (l.cluster > 1) {
      attributes[numAttrs].id = cudaLaunchAttributeClusterDimension;
      attributes[numAttrs++].val.clusterDim = {static_cast<unsigned>(l.cluster), 1, 1};
    }
  }
  Configuration(const Configuration&) = delete;
  cudaLaunchAttribute attributes[2]{};
};

template <class... Parameters>
[[nodiscard]] cudaError_t launch(void (*kernel)(Parameters...), const Launch& l, const Parameters&... parameters) {
  if (const auto error = allow_shared(kernel, l.shared_bytes); error != cudaSuccess) return error;
  const Configuration configuration(l);
  return cudaLaunchKernelEx(&configuration, kernel, parameters...);
}

[[nodiscard]] inline cudaError_t multiprocessors(int* count) {
  int device = 0;
  const auto error = cudaGetDevice(&device);
  return error != cudaSuccess ? error : cudaDeviceGetAttribute(count, cudaDevAttrMultiProcessorCount, device);
}

// How many blocks run at the same time: as many as fit on a multiprocessor, times those. In clusters, which do not
// cross the borders of what the multiprocessors are grouped in, they may be fewer.
template <class... Parameters>
[[nodiscard]] cudaError_t resident_blocks(void (*kernel)(Parameters...), const Launch& l, int* count) {
  int each = 0;
  if (const auto error = allow_shared(kernel, l.shared_bytes); error != cudaSuccess) return error;
  if (const auto error = multiprocessors(count); error != cudaSuccess) return error;
  if (l.cluster > 1) {
    Launch one = l;
    one.blocks = dim3(l.cluster);
    const Configuration configuration(one);
    const auto error = cudaOccupancyMaxActiveClusters(count, kernel, &configuration);
    *count *= l.cluster;
    return error != cudaSuccess || *count > 0 ? error : cudaErrorLaunchOutOfResources;
  }
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
  return emulator::launch(kernel, l.blocks, l.threads, l.shared_bytes, l.cluster, parameters...);
}

[[nodiscard]] inline cudaError_t multiprocessors(int* count) {
  *count = emulator::schedule.multiprocessors;
  return cudaSuccess;
}

template <class... Parameters>
[[nodiscard]] cudaError_t resident_blocks(void (*)(Parameters...), const Launch& l, int* count) {
  *count = std::max(emulator::schedule.multiprocessors / l.cluster, 1) * l.cluster;
  return cudaSuccess;
}
#endif

}  // namespace lossk::device
