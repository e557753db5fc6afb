// What the 32 lanes of a warp do together. Every lane named in `mask` must arrive at the same call.
#pragma once
#include "device/platform.h"

#ifndef __CUDACC__
#include "emulator/warp.h"
#else
namespace lossk::device {

constexpr uint32_t kAllLanes = 0xffffffffu;

// PTX ISA: special-registers-laneid
LOSSK_DEVICE int lane_index() {
  int lane;
  asm("mov.u32 %0, %%laneid;" : "=r"(lane));
  return lane;
}

// PTX ISA: parallel-synchronization-and-communication-instructions-bar-warp-sync. Also orders shared memory.
LOSSK_DEVICE void sync_warp(uint32_t mask = kAllLanes) { __syncwarp(mask); }

// ...-instructions-shfl-sync. T of 4 bytes. They order nothing.
template <class T>
LOSSK_DEVICE T shuffle(T x, int lane, uint32_t mask = kAllLanes) {
  static_assert(sizeof(T) == 4);
  return __shfl_sync(mask, x, lane);
}
template <class T>
LOSSK_DEVICE T shuffle_xor(T x, int lanes, uint32_t mask = kAllLanes) {
  static_assert(sizeof(T) == 4);
  return __shfl_xor_sync(mask, x, lanes);
}
// From lane + lanes; the last ones keep their own.
template <class T>
LOSSK_DEVICE T shuffle_down(T x, int lanes, uint32_t mask = kAllLanes) {
  static_assert(sizeof(T) == 4);
  return __shfl_down_sync(mask, x, lanes);
}

// ...-instructions-vote-sync
LOSSK_DEVICE uint32_t warp_ballot(bool vote, uint32_t mask = kAllLanes) { return __ballot_sync(mask, vote); }

// integer-arithmetic-instructions-popc: how many bits are set
LOSSK_DEVICE int count_bits(uint32_t x) { return __popc(x); }

// ...-instructions-match-sync: the lanes that hold the same x
LOSSK_DEVICE uint32_t match_any(uint32_t x, uint32_t mask = kAllLanes) { return __match_any_sync(mask, x); }

// ...-instructions-redux-sync
LOSSK_DEVICE uint32_t reduce_add(uint32_t x, uint32_t mask = kAllLanes) { return __reduce_add_sync(mask, x); }
LOSSK_DEVICE uint32_t reduce_max(uint32_t x, uint32_t mask = kAllLanes) { return __reduce_max_sync(mask, x); }
LOSSK_DEVICE uint32_t reduce_min(uint32_t x, uint32_t mask = kAllLanes) { return __reduce_min_sync(mask, x); }
LOSSK_DEVICE uint32_t reduce_or(uint32_t x, uint32_t mask = kAllLanes) { return __reduce_or_sync(mask, x); }

// ...-instructions-elect-sync (sm_90): true in one lane of the warp, which one is not said.
LOSSK_DEVICE bool elect_one() {
  uint32_t chosen;
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "elect.sync _|p, 0xffffffff;\n"
      "selp.u32 %0, 1, 0, p;\n"
      "}"
      : "=r"(chosen));
  return chosen;
}

}  // namespace lossk::device
#endif
