// Barriers: named ones for groups of warps, and mbarriers, which also count bytes that copies bring.
//
// An mbarrier is in phase 0, 1, 2, ...; a phase is complete once `arrivals` threads have arrived and all bytes that
// were announced have come. wait(parity) returns when the current phase's parity differs, so a consumer starts with 0,
// and a producer that may fill an empty ring at once starts with 1.
#pragma once
#include "device/platform.h"
#include "device/shared.h"

#ifndef __CUDACC__
#include "emulator/barrier.h"
#else
namespace lossk::device {

LOSSK_DEVICE void sync_block() { __syncthreads(); }

// PTX ISA: parallel-synchronization-and-communication-instructions-bar. id 1 to 15 (0 is sync_block's), `threads` a
// multiple of 32 and the same in every call until the barrier completes.
LOSSK_DEVICE void barrier_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
LOSSK_DEVICE void barrier_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

using Mbarrier = uint64_t;  // in shared memory

// ...-instructions-mbarrier-init, by one thread; then fence_mbarrier_init and a barrier, before anyone uses it.
LOSSK_DEVICE void mbarrier_init(Mbarrier* b, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(b)), "r"(arrivals) : "memory");
}
// ...-instructions-mbarrier-inval: the memory may then serve otherwise.
LOSSK_DEVICE void mbarrier_invalidate(Mbarrier* b) {
  asm volatile("mbarrier.inval.shared::cta.b64 [%0];" ::"r"(shared_address(b)) : "memory");
}
// ...-instructions-mbarrier-arrive
LOSSK_DEVICE void mbarrier_arrive(Mbarrier* b) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(b)) : "memory");
}
// The same, and `bytes` more are to come in this phase. Trap: below 2^20 in all.
LOSSK_DEVICE void mbarrier_arrive_expect(Mbarrier* b, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(b)), "r"(bytes)
               : "memory");
}
// ...-instructions-mbarrier-test-wait: does not wait longer than the hardware likes.
LOSSK_DEVICE bool mbarrier_try_wait(Mbarrier* b, uint32_t parity) {
  uint32_t done;
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
      "selp.u32 %0, 1, 0, p;\n"
      "}"
      : "=r"(done)
      : "r"(shared_address(b)), "r"(parity)
      : "memory");
  return done;
}
LOSSK_DEVICE void mbarrier_wait(Mbarrier* b, uint32_t parity) {
  while (!mbarrier_try_wait(b, parity)) {
  }
}

// ...-instructions-membar-fence. Initialised mbarriers become visible to copies and to other blocks of the cluster.
LOSSK_DEVICE void fence_mbarrier_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
// Shared memory written by this thread's ordinary stores becomes visible to wgmma and TMA. By each writer, before the
// barrier after which they read.
LOSSK_DEVICE void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
// Global memory: this thread's writes come before its later ones, for every other block.
LOSSK_DEVICE void fence_device() { __threadfence(); }

// miscellaneous-instructions-setmaxnreg: registers of each thread of this warpgroup, 24 to 256 in eights. Trap: needs
// __launch_bounds__, and `increase` waits until another warpgroup has let go of as many.
template <int registers>
LOSSK_DEVICE void decrease_registers() {
  static_assert(registers % 8 == 0 && registers >= 24 && registers <= 256);
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}
template <int registers>
LOSSK_DEVICE void increase_registers() {
  static_assert(registers % 8 == 0 && registers >= 24 && registers <= 256);
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
}

}  // namespace lossk::device
#endif
