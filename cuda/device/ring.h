// A ring of stages in shared memory: a producer fills them through TMA, consumers empty them, each waits for the other.
//
//   producer: for (RingTurn<stages> turn;; ++turn) tma_load(..., ring.fill(turn, bytes), ...)
//   consumer: for (RingTurn<stages> turn;; ++turn) ring.wait_full(turn), ..., ring.release(turn, 0)
//
// Both walk the same turns; neither knows how far the other is. In a cluster whose blocks load into each other's
// stages, every block's producer waits for every block's consumers, for all have a stage free at the same time:
//
//   init(consumers * cluster_size()), then sync_cluster; release(turn, rank) for each rank; and sync_cluster at the end
#pragma once
#include "device/cluster.h"

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

  // By one thread; then sync_block or sync_cluster, before anyone uses it. `consumers`: how many release each stage.
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
  // To block `rank` of the cluster; alone, a block is its own 0. Trap: by one lane for its warp only after sync_warp or
  // wgmma_wait, when all lanes have read.
  LOSSK_DEVICE void release(const RingTurn<stages>& turn, int rank) { mbarrier_arrive_at(&empty[turn.stage], rank); }
};

}  // namespace lossk::device
