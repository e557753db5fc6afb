// device/shared.h on a CPU.
#pragma once
#include "device/platform.h"

namespace lossk::device {

LOSSK_DEVICE uint32_t shared_address(const void* p) { return emulator::shared_address(p); }

template <bool transposed = false, int count>
LOSSK_DEVICE void ldmatrix(uint32_t (&r)[count], uint32_t row) {
  static_assert(count == 1 || count == 2 || count == 4);
  emulator::ldmatrix(r, count, row, transposed);
}
template <bool transposed = false, int count>
LOSSK_DEVICE void stmatrix(uint32_t row, const uint32_t (&r)[count]) {
  static_assert(count == 1 || count == 2 || count == 4);
  emulator::stmatrix(r, count, row, transposed);
}

template <int bytes>
LOSSK_DEVICE void cp_async(uint32_t to, const void* from, bool valid) {
  static_assert(bytes == 4 || bytes == 8 || bytes == 16);
  emulator::cp_async(to, from, bytes, valid);
}
LOSSK_DEVICE void cp_async_commit() { emulator::cp_async_commit(); }
template <int groups>
LOSSK_DEVICE void cp_async_wait() {
  emulator::cp_async_wait(groups);
}

}  // namespace lossk::device
