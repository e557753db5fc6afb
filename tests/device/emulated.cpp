// The emulated kernels as a library, for tests in Python: plain C, host pointers, an error as text.
#include <cstdio>

#include "emulator/emulator.h"
#include "head/lse/params.h"

namespace {

using namespace lossk;

// Global memory of one launch.
class Allowed {
 public:
  Allowed(const void* p, size_t bytes) : p_(p) { emulator::allow_global(p, bytes); }
  ~Allowed() { emulator::forbid_global(p_); }

 private:
  const void* p_;
};

template <class F>
int explained(char* problem, size_t size, F f) {
  try {
    if (f() == cudaSuccess) return 0;
    snprintf(problem, size, "the launcher refused its arguments");
  } catch (const std::exception& e) {
    snprintf(problem, size, "%s", e.what());
  }
  return 1;
}

}  // namespace

extern "C" {

void lossk_emulated_schedule(
    unsigned long long seed, int order, int timing, int resident, int multiprocessors, int skew) {
  emulator::schedule = {
      seed, static_cast<emulator::Order>(order), static_cast<emulator::Timing>(timing), resident, multiprocessors,
      skew};
}

int lossk_emulated_lse(bool hopper, int element, const head::LseParams* p, char* problem, size_t problem_size) {
  const Allowed input(p->input, 2 * int64_t{p->n} * p->d), weight(p->weight, 2 * int64_t{p->v} * p->d);
  return explained(problem, problem_size, [&] {
    return (hopper ? head::lse_sm90 : head::lse)(*p, static_cast<device::Element>(element), nullptr);
  });
}
}
