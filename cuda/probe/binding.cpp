// cuda_build_info and gpu_arch, schemas in cpp/ops.cpp.
#include <tuple>

#include "binding.h"
#include "probe/probe.h"

namespace lossk::probe {
namespace {

std::tuple<std::string, std::string> cuda_build_info() {
  return {std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10), LOSSK_ARCHS};
}

Tensor gpu_arch(const Tensor& like) {
  const char* op = "gpu_arch";
  const OnDevice device(op, like);
  Tensor arch = empty(op, like, {1}, ScalarType::Int);
  auto launch = run;
#if LOSSK_SM90
  if (device.capability == 90) launch = run_sm90;  // exact: 90a and 100a code runs on no other GPU
#endif
#if LOSSK_SM100
  if (device.capability == 100) launch = run_sm100;
#endif
  launch({data<int>(arch), device.stream});
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return arch;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lossk, CUDA, m) { m.impl("gpu_arch", TORCH_BOX(&gpu_arch)); }
STABLE_TORCH_LIBRARY_IMPL(lossk, CompositeExplicitAutograd, m) {
  m.impl("cuda_build_info", TORCH_BOX(&cuda_build_info));
}

}  // namespace lossk::probe
