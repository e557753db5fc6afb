// device/warp.h on a CPU.
#pragma once
#include <bit>

#include "device/platform.h"

namespace lossk::device {

constexpr uint32_t kAllLanes = 0xffffffffu;

LOSSK_DEVICE int lane_index() { return emulator::linear_thread() % 32; }

LOSSK_DEVICE void sync_warp(uint32_t mask = kAllLanes) { emulator::sync_warp(mask); }

template <class T>
LOSSK_DEVICE T shuffle(T x, int lane, uint32_t mask = kAllLanes) {
  static_assert(sizeof(T) == 4);
  return std::bit_cast<T>(emulator::shuffle(std::bit_cast<uint32_t>(x), lane, mask));
}
template <class T>
LOSSK_DEVICE T shuffle_xor(T x, int lanes, uint32_t mask = kAllLanes) {
  return shuffle(x, lane_index() ^ lanes, mask);
}
template <class T>
LOSSK_DEVICE T shuffle_down(T x, int lanes, uint32_t mask = kAllLanes) {
  return shuffle(x, lane_index() + lanes < 32 ? lane_index() + lanes : lane_index(), mask);
}

LOSSK_DEVICE uint32_t warp_ballot(bool vote, uint32_t mask = kAllLanes) { return emulator::warp_ballot(vote, mask); }
LOSSK_DEVICE int count_bits(uint32_t x) { return std::popcount(x); }
LOSSK_DEVICE uint32_t match_any(uint32_t x, uint32_t mask = kAllLanes) { return emulator::match_any(x, mask); }

LOSSK_DEVICE uint32_t reduce_add(uint32_t x, uint32_t mask = kAllLanes) {
  return emulator::reduce(emulator::Reduction::add, x, mask);
}
LOSSK_DEVICE uint32_t reduce_max(uint32_t x, uint32_t mask = kAllLanes) {
  return emulator::reduce(emulator::Reduction::max, x, mask);
}
LOSSK_DEVICE uint32_t reduce_min(uint32_t x, uint32_t mask = kAllLanes) {
  return emulator::reduce(emulator::Reduction::min, x, mask);
}
LOSSK_DEVICE uint32_t reduce_or(uint32_t x, uint32_t mask = kAllLanes) {
  return emulator::reduce(emulator::Reduction::bit_or, x, mask);
}

LOSSK_DEVICE bool elect_one() { return emulator::elect_one(); }

}  // namespace lossk::device
