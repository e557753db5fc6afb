// device/wgmma.h on a CPU.
#pragma once
#include "emulator/shared.h"

namespace lossk::device {

LOSSK_DEVICE void wgmma_fence() { emulator::wgmma_fence(); }
LOSSK_DEVICE void wgmma_commit() { emulator::wgmma_commit(); }
template <int groups>
LOSSK_DEVICE void wgmma_wait() {
  emulator::wgmma_wait(groups);
}

template <int count>
LOSSK_DEVICE void keep(float (&)[count]) {}

template <class T, int N, bool a_transposed = false, bool b_transposed = false>
LOSSK_DEVICE void wgmma(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate) {
  emulator::wgmma({ElementOf<T>::value, d, nullptr, a, b, N, a_transposed, b_transposed, accumulate});
}
template <class T, int N, bool b_transposed = false>
LOSSK_DEVICE void wgmma(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
  emulator::wgmma({ElementOf<T>::value, d, a, 0, b, N, false, b_transposed, accumulate});
}

}  // namespace lossk::device
