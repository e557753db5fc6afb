#pragma once
#include "probe/probe.h"

namespace lossk::probe {

template <int unused>  // a template, so that every file that includes it gets a kernel of its own
__global__ void probe_kernel(int* arch) {
#ifdef __CUDA_ARCH__
  *arch = __CUDA_ARCH__;
#endif
}

}  // namespace lossk::probe
