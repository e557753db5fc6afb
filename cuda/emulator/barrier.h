// device/barrier.h on a CPU.
#pragma once
#include "emulator/shared.h"

namespace lossk::device {

LOSSK_DEVICE void sync_block() { emulator::sync_block(); }
LOSSK_DEVICE void barrier_sync(int id, int threads) { emulator::barrier_sync(id, threads); }
LOSSK_DEVICE void barrier_arrive(int id, int threads) { emulator::barrier_arrive(id, threads); }

using Mbarrier = uint64_t;

LOSSK_DEVICE void mbarrier_init(Mbarrier* b, int arrivals) { emulator::mbarrier_init(shared_address(b), arrivals); }
LOSSK_DEVICE void mbarrier_invalidate(Mbarrier* b) { emulator::mbarrier_invalidate(shared_address(b)); }
LOSSK_DEVICE void mbarrier_arrive(Mbarrier* b) { emulator::mbarrier_arrive(shared_address(b), 0); }
LOSSK_DEVICE void mbarrier_arrive_expect(Mbarrier* b, int bytes) {
  emulator::mbarrier_arrive(shared_address(b), bytes);
}
LOSSK_DEVICE bool mbarrier_try_wait(Mbarrier* b, uint32_t parity) {
  return emulator::mbarrier_try_wait(shared_address(b), parity);
}
LOSSK_DEVICE void mbarrier_wait(Mbarrier* b, uint32_t parity) { emulator::mbarrier_wait(shared_address(b), parity); }

LOSSK_DEVICE void fence_mbarrier_init() { emulator::fence_mbarrier_init(); }
LOSSK_DEVICE void fence_proxy_async() { emulator::fence_proxy_async(); }
LOSSK_DEVICE void fence_device() { emulator::fence_device(); }

template <int registers>
LOSSK_DEVICE void decrease_registers() {
  static_assert(registers % 8 == 0 && registers >= 24 && registers <= 256);
  emulator::set_registers(registers, false);
}
template <int registers>
LOSSK_DEVICE void increase_registers() {
  static_assert(registers % 8 == 0 && registers >= 24 && registers <= 256);
  emulator::set_registers(registers, true);
}

}  // namespace lossk::device
