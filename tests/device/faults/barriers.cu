// Broken uses of barriers and mbarriers, and what the emulator says of them.
#include "device/barrier.h"

#include "device/faults/fault.h"
#include "device/swizzle.h"

namespace lossk::test {
namespace {

__global__ void half_a_block_syncs() {
  if (threadIdx.x < 32) sync_block();  // line 11
}
LOSSK_TEST(deadlock_at_a_block_barrier) {
  expect_fault({"deadlock", "32 threads in sync_block at tests/device/faults/barriers.cu:11", "32 of 64 threads"}, [] {
    run(half_a_block_syncs, {1, 64, 0, nullptr});
  });
}

__global__ void disagree_on_the_number() { barrier_sync(3, threadIdx.x < 32 ? 64 : 96); }
LOSSK_TEST(barrier_with_two_thread_counts) {
  expect_fault({"barrier 3 of", "but others said"}, [] { run(disagree_on_the_number, {1, 64, 0, nullptr}); });
}

__global__ void bad_barrier(int id, int threads) { barrier_sync(id, threads); }
LOSSK_TEST(barrier_out_of_range) {
  for (const auto& [id, threads] : {std::pair{0, 32}, {16, 32}, {1, 33}, {1, 0}})
    expect_fault(
        {"ids are 1 to 15, threads a multiple of 32"}, [&] { run(bad_barrier, {1, 32, 0, nullptr}, id, threads); });
}

struct OneMbarrier {
  Mbarrier barrier;
  alignas(128) unsigned char data[256];
};

// One thread prepares, then each runs F on the mbarrier.
template <class F>
__global__ void with_mbarrier(int arrivals) {
  LOSSK_SHARED(raw);
  auto& s = *reinterpret_cast<OneMbarrier*>(align_shared<128>(raw, shared_address(raw)));
  if (threadIdx.x == 0) {
    mbarrier_init(&s.barrier, arrivals);
    fence_mbarrier_init();
  }
  sync_block();
  F()(s);
}
template <class F>
void on_mbarrier(int arrivals = 1) {
  run(with_mbarrier<F>, {1, 32, sizeof(OneMbarrier) + 128, nullptr}, arrivals);
}

struct WaitForNobody {
  LOSSK_DEVICE void operator()(OneMbarrier& s) const {
    mbarrier_wait(&s.barrier, 0);  // line 55
  }
};
LOSSK_TEST(deadlock_at_an_mbarrier) {
  expect_fault(
      {"deadlock", "mbarrier_wait at tests/device/faults/barriers.cu:55", "parity 0, is in phase 0", "2 of 2 arrivals"},
      [] { on_mbarrier<WaitForNobody>(2); });
}

struct PollForNobody {
  LOSSK_DEVICE void operator()(OneMbarrier& s) const {
    while (!mbarrier_try_wait(&s.barrier, 0)) {
    }
  }
};
LOSSK_TEST(livelock) {
  expect_fault({"livelock", "mbarrier_try_wait", "1 of 1 arrivals"}, [] { on_mbarrier<PollForNobody>(); });
}

struct ArriveTwice {
  LOSSK_DEVICE void operator()(OneMbarrier& s) const {
    if (threadIdx.x < 2) mbarrier_arrive_expect(&s.barrier, 16);
  }
};
LOSSK_TEST(more_arrivals_than_counted) {
  expect_fault({"more arrivals than the mbarrier's 1 in phase 0"}, [] { on_mbarrier<ArriveTwice>(); });
}

struct Overwrite {
  LOSSK_DEVICE void operator()(OneMbarrier& s) const {
    if (threadIdx.x == 0) {
      s.barrier = 0;
      mbarrier_arrive(&s.barrier);
    }
  }
};
LOSSK_TEST(mbarrier_overwritten) {
  expect_fault({"not initialised, or overwritten"}, [] { on_mbarrier<Overwrite>(); });
}

__global__ void never_initialised() {
  LOSSK_SHARED(raw);
  mbarrier_arrive(reinterpret_cast<Mbarrier*>(raw));
}
LOSSK_TEST(mbarrier_never_initialised) {
  expect_fault({"no mbarrier at shared address"}, [] { run(never_initialised, {1, 32, 16, nullptr}); });
}

__global__ void misaligned_mbarrier() {
  LOSSK_SHARED(raw);
  mbarrier_init(reinterpret_cast<Mbarrier*>(raw + 4), 1);
}
LOSSK_TEST(mbarrier_misaligned) {
  expect_fault({"is not aligned to 8 bytes"}, [] { run(misaligned_mbarrier, {1, 1, 32, nullptr}); });
}

__global__ void greedy() {
  if (threadIdx.x < 128) decrease_registers<152>();
  else increase_registers<240>();
}
LOSSK_TEST(more_registers_than_there_are) {
  expect_fault({"livelock", "in increase_registers at"}, [] { run(greedy, {1, 384, 0, nullptr}); });
}

__global__ void decreases_upwards() { decrease_registers<200>(); }
LOSSK_TEST(a_decrease_that_is_none) {
  expect_fault({"from 168 to 200 registers"}, [] { run(decreases_upwards, {1, 384, 0, nullptr}); });
}

__global__ void two_lines() {
  if (threadIdx.x % 2) sync_block();
  else sync_block();
}
LOSSK_TEST(divergent_at_a_barrier) {
  expect_fault({"divergent warp", "sync_block at tests/device/faults/barriers.cu:"}, [] {
    run(two_lines, {1, 32, 0, nullptr});
  });
}

LOSSK_TEST(launch_out_of_range) {
  expect_fault({"2048 threads a block"}, [] { run(half_a_block_syncs, {1, 2048, 0, nullptr}); });
  expect_fault({"240000 bytes of shared memory"}, [] { run(half_a_block_syncs, {1, 32, 240000, nullptr}); });
}

}  // namespace
}  // namespace lossk::test
