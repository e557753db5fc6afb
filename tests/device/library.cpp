// The kernels as a library for Python, which has no op for them yet: plain C, pointers of the device, errors as text.
//
// Compiled by nvcc for a GPU, by g++ for the emulator, where a device's memory is the host's.
#include <cstdio>
#include <string>

#include "head/cce/params.h"
#include "head/lse/params.h"
#ifndef __CUDACC__
#include "emulator/emulator.h"
#endif

namespace {

using namespace lossk;

#ifdef __CUDACC__
struct Allowed {
  Allowed(const void*, size_t) {}
};
std::string name_of(cudaError_t error) { return cudaGetErrorString(error); }
#else
// Global memory that one launch may touch.
class Allowed {
 public:
  Allowed(const void* p, size_t bytes) : p_(p) { emulator::allow_global(p, bytes); }
  ~Allowed() { emulator::forbid_global(p_); }

 private:
  const void* p_;
};
std::string name_of(cudaError_t) { return "invalid argument"; }
#endif

// 0, or 1 and why.
template <class F>
int explained(char* problem, size_t size, F f) {
  std::string why;
  try {
    const cudaError_t error = f();
    if (error == cudaSuccess) return 0;
    why = name_of(error);
  } catch (const std::exception& e) {
    why = e.what();
  }
  snprintf(problem, size, "%s", why.c_str());
  return 1;
}

// What TMA and cp.async read; ordinary loads and stores are AddressSanitizer's.
int run_lse(
    decltype(&head::lse) launcher, const head::LseParams& p, int element, void* stream, char* problem, size_t size) {
  const Allowed input(p.input, 2 * int64_t{p.n} * p.d), weight(p.weight, 2 * int64_t{p.v} * p.d);
  return explained(problem, size, [&] {
    return launcher(p, static_cast<device::Element>(element), static_cast<cudaStream_t>(stream));
  });
}

int run_cce_backward(
    decltype(&head::cce_backward) launcher, const head::CceBackwardParams& p, int element, void* stream, char* problem,
    size_t size) {
  const Allowed input(p.input, 2 * int64_t{p.n} * p.d), weight(p.weight, 2 * int64_t{p.v} * p.d);
  const Allowed dlogits(p.dlogits, 2 * int64_t{p.n} * p.chunk);
  return explained(problem, size, [&] {
    return launcher(p, static_cast<device::Element>(element), static_cast<cudaStream_t>(stream));
  });
}

}  // namespace

extern "C" {

#ifndef __CUDACC__
void lossk_schedule(unsigned long long seed, int order, int timing, int resident, int multiprocessors, int skew) {
  emulator::schedule = {
      seed, static_cast<emulator::Order>(order), static_cast<emulator::Timing>(timing), resident, multiprocessors,
      skew};
}
#endif

int lossk_lse_mma_sync(const head::LseParams* p, int element, void* stream, char* problem, size_t size) {
  return run_lse(head::lse, *p, element, stream, problem, size);
}
int lossk_cce_backward_mma_sync(
    const head::CceBackwardParams* p, int element, void* stream, char* problem, size_t size) {
  return run_cce_backward(head::cce_backward, *p, element, stream, problem, size);
}

#if LOSSK_TEST_SM90
int lossk_lse_wgmma(const head::LseParams* p, int element, void* stream, char* problem, size_t size) {
  return run_lse(head::lse_sm90, *p, element, stream, problem, size);
}
int lossk_cce_backward_wgmma(const head::CceBackwardParams* p, int element, void* stream, char* problem, size_t size) {
  return run_cce_backward(head::cce_backward_sm90, *p, element, stream, problem, size);
}
#endif
}
