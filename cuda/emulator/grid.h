// device/grid.h on a CPU.
#pragma once
#include <bit>

#include "device/platform.h"

namespace lossk::device {

LOSSK_DEVICE uint32_t atomic_add(uint32_t* p, uint32_t x) {
  return emulator::atomic(p, [](uint32_t old, uint32_t x, uint32_t) { return old + x; }, x);
}
LOSSK_DEVICE float atomic_add(float* p, float x) {
  const auto add = [](uint32_t old, uint32_t x, uint32_t) {
    return std::bit_cast<uint32_t>(std::bit_cast<float>(old) + std::bit_cast<float>(x));
  };
  return std::bit_cast<float>(emulator::atomic(p, add, std::bit_cast<uint32_t>(x)));
}
LOSSK_DEVICE uint32_t atomic_max(uint32_t* p, uint32_t x) {
  return emulator::atomic(p, [](uint32_t old, uint32_t x, uint32_t) { return std::max(old, x); }, x);
}
LOSSK_DEVICE uint32_t atomic_exchange(uint32_t* p, uint32_t x) {
  return emulator::atomic(p, [](uint32_t, uint32_t x, uint32_t) { return x; }, x);
}
LOSSK_DEVICE uint32_t atomic_compare_exchange(uint32_t* p, uint32_t expected, uint32_t x) {
  return emulator::atomic(
      p, [](uint32_t old, uint32_t x, uint32_t expected) { return old == expected ? x : old; }, x, expected);
}

LOSSK_DEVICE void store_release(uint32_t* p, uint32_t x) { emulator::store_release(p, x); }
LOSSK_DEVICE uint32_t load_acquire(const uint32_t* p) { return emulator::load_acquire(p); }
LOSSK_DEVICE void backoff(unsigned) { emulator::backoff(); }

LOSSK_DEVICE void launch_dependents() { emulator::launch_dependents(); }
LOSSK_DEVICE void wait_for_grids() { emulator::wait_for_grids(); }

}  // namespace lossk::device
