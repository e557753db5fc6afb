// cuda_build_info and gpu_arch, schemas in cpp/ops.cpp.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>

#include <string>
#include <tuple>

#include "common/tensor.h"
#include "probe/probe.h"

namespace lossk::probe {
namespace {

std::tuple<std::string, std::string> cuda_build_info() {
  return {std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10), LOSSK_ARCHS};
}

Tensor gpu_arch(const Tensor& like) {
  const auto device = like.get_device_index();
  torch::stable::accelerator::DeviceGuard guard(device);
  Tensor arch = empty("gpu_arch", like, {1}, ScalarType::Int);
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  int major = 0, minor = 0;
  STD_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  STD_CUDA_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
  [[maybe_unused]] const int sm = 10 * major + minor;  // exact: 90a and 100a code runs on no other GPU
  auto launch = run;
#if LOSSK_SM90
  if (sm == 90) launch = run_sm90;
#endif
#if LOSSK_SM100
  if (sm == 100) launch = run_sm100;
#endif
  launch({data<int>(arch), static_cast<cudaStream_t>(stream)});
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return arch;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lossk, CUDA, m) { m.impl("gpu_arch", TORCH_BOX(&gpu_arch)); }
STABLE_TORCH_LIBRARY_IMPL(lossk, CompositeExplicitAutograd, m) {
  m.impl("cuda_build_info", TORCH_BOX(&cuda_build_info));
}

}  // namespace lossk::probe
