// What the bindings need of a device beside torch's tensors. The only part of cuda/ that knows torch is binding.cpp.
#pragma once
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>

#include <string>

#include "common/tensor.h"
#include "device/platform.h"

namespace lossk {

inline void check_device(const char* op, const char* argument, const Tensor& x, const Tensor& like) {
  check(
      x.is_cuda() == like.is_cuda() && x.get_device_index() == like.get_device_index(), op, ": ", argument,
      " must be on input's device");
}

#ifndef LOSSK_EMULATOR
#define LOSSK_DISPATCH CUDA

inline void check_cuda(const char* op, cudaError_t error) {
  check(error == cudaSuccess, op, ": ", cudaGetErrorString(error));
}

// While it lives, a tensor's device is the current one.
class OnDevice {
 public:
  OnDevice(const char* op, const Tensor& like) : guard_(like.get_device_index()) {
    void* current = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(like.get_device_index(), &current));
    stream = static_cast<cudaStream_t>(current);
    int major = 0, minor = 0;
    check_cuda(op, cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, like.get_device_index()));
    check_cuda(op, cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, like.get_device_index()));
    capability = 10 * major + minor;
  }
  cudaStream_t stream;
  int capability;  // 90 for 9.0

 private:
  torch::stable::accelerator::DeviceGuard guard_;
};
#else
#define LOSSK_DISPATCH CPU

inline void check_cuda(const char* op, cudaError_t error) {
  check(error == cudaSuccess, op, ": invalid argument of a kernel");
}

struct OnDevice {  // in the emulator, where a CPU's memory is the device's
  OnDevice(const char*, const Tensor&) {}
  cudaStream_t stream = nullptr;
  int capability = 90;
};
#endif

}  // namespace lossk
