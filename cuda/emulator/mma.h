// device/mma.h on a CPU.
#pragma once
#include "device/platform.h"

namespace lossk::device {

template <class T>
LOSSK_DEVICE void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  emulator::mma(ElementOf<T>::value, d, a, b);
}
LOSSK_DEVICE void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  emulator::mma(Element::tf32, d, a, b);
}

}  // namespace lossk::device
