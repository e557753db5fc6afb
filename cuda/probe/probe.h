// Which of the compiled binaries does this GPU run? The smallest kernel there is: it proves the whole path.
#pragma once
#include <cuda_runtime.h>

namespace lossk::probe {

struct Params {
  int* arch;  // [1], __CUDA_ARCH__ of the code that ran
  cudaStream_t stream;
};

void run(const Params&);        // any GPU
void run_sm90(const Params&);   // Hopper
void run_sm100(const Params&);  // Blackwell

}  // namespace lossk::probe
