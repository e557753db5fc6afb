// The ops of the GPU library in the emulator: loaded beside lossk, it takes the CPU kernels' place.
#include "emulator/emulator.h"

extern "C" {

// From now on under this schedule of cuda/emulator/emulator.h.
[[gnu::visibility("default")]] void lossk_emulate(
    unsigned long long seed, int order, int timing, int resident, int multiprocessors, int skew) {
  using namespace lossk;
  emulator::schedule = {
      seed, static_cast<emulator::Order>(order), static_cast<emulator::Timing>(timing), resident, multiprocessors,
      skew};
  emulator::allow_global(nullptr, SIZE_MAX);  // torch's memory is anywhere
}
}
