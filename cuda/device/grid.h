// Between blocks and between kernels.
#pragma once
#include "device/platform.h"

#ifndef __CUDACC__
#include "emulator/grid.h"
#else
namespace lossk::device {

// PTX ISA: parallel-synchronization-and-communication-instructions-atom. Returns what was there.
LOSSK_DEVICE uint32_t atomic_add(uint32_t* p, uint32_t x) { return atomicAdd(p, x); }
LOSSK_DEVICE float atomic_add(float* p, float x) { return atomicAdd(p, x); }
LOSSK_DEVICE uint32_t atomic_max(uint32_t* p, uint32_t x) { return atomicMax(p, x); }
LOSSK_DEVICE uint32_t atomic_exchange(uint32_t* p, uint32_t x) { return atomicExch(p, x); }
LOSSK_DEVICE uint32_t atomic_compare_exchange(uint32_t* p, uint32_t expected, uint32_t x) {
  return atomicCAS(p, expected, x);
}

// Flags between blocks: what was written before a release is seen after an acquire that reads it.
LOSSK_DEVICE void store_release(uint32_t* p, uint32_t x) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(p), "r"(x) : "memory");
}
LOSSK_DEVICE uint32_t load_acquire(const uint32_t* p) {
  uint32_t x;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(x) : "l"(p) : "memory");
  return x;
}
// In every loop that waits for a flag.
LOSSK_DEVICE void backoff(unsigned nanoseconds) { __nanosleep(nanoseconds); }

// parallel-synchronization-and-communication-instructions-griddepcontrol (sm_90): the next kernel of the stream may
// start; until the kernels before are done and their writes visible.
LOSSK_DEVICE void launch_dependents() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }
LOSSK_DEVICE void wait_for_grids() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

}  // namespace lossk::device
#endif
