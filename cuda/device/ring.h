// A ring of stages in shared memory: a producer fills them through TMA, consumers empty them, each waits for the other.
//
//   producer: for (RingTurn<stages> turn;; ++turn) tma_load(..., ring.fill(turn, bytes), ...)
//   consumer: for (RingTurn<stages> turn;; ++turn) ring.wait_full(turn), ..., ring.release(turn)
//
// Both walk the same turns; neither knows how far the other is.
#pragma once
#include "device/barrier.h"

namespace lossk::device {

template <int stages>
struct RingTurn {
  int stage = 0;
  uint32_t phase = 0;

  LOSSK_DEVICE RingTurn& operator++() {
    if (++stage == stages) {
      stage = 0;
      phase ^= 1;
    }
    return *this;
  }
  LOSSK_DEVICE RingTurn before() const { return {stage ? stage - 1 : stages - 1, stage ? phase : phase ^ 1}; }
};

template <int stages>
struct Ring {
  Mbarrier full[stages], empty[stages];

  // By one thread; then sync_block, before anyone uses it. `consumers`: how many release each stage.
  LOSSK_DEVICE void init(int consumers) {
    for (int i = 0; i < stages; ++i) {
      mbarrier_init(&full[i], 1);
      mbarrier_init(&empty[i], consumers);
    }
    fence_mbarrier_init();
  }

  // By the one producing thread: waits until the stage is free, announces `bytes`, and returns what its loads count on.
  LOSSK_DEVICE Mbarrier* fill(const RingTurn<stages>& turn, int bytes) {
    mbarrier_wait(&empty[turn.stage], turn.phase ^ 1);  // a ring starts empty: the phase before the first is complete
    mbarrier_arrive_expect(&full[turn.stage], bytes);
    return &full[turn.stage];
  }
  LOSSK_DEVICE void wait_full(const RingTurn<stages>& turn) { mbarrier_wait(&full[turn.stage], turn.phase); }
  // Trap: by one lane for its warp only after sync_warp or wgmma_wait, when all lanes have read.
  LOSSK_DEVICE void release(const RingTurn<stages>& turn) { mbarrier_arrive(&empty[turn.stage]); }
};

}  // namespace lossk::device
