// Global memory between blocks: what flags and atomics order, and what they do not.
#include "device/barrier.h"
#include "device/faults/fault.h"
#include "device/grid.h"
#include "device/warp.h"

namespace lossk::test {
namespace {

constexpr int kBlocks = 3, kThreads = 64;

template <class F>
__global__ void between_blocks(uint32_t* words, uint32_t* flag, uint32_t* out) {
  F()(words, flag, out);
}

// kBlocks x kThreads words, a flag that starts as 0, one result.
template <class F>
uint32_t with_blocks() {
  Buffer<uint32_t> words(std::vector<uint32_t>(kBlocks * kThreads, 0)), flag(std::vector<uint32_t>(1, 0)),
      out(size_t(1));
  emulator::schedule.resident = kBlocks;  // they wait for one another
  run(between_blocks<F>, {kBlocks, kThreads, 0, nullptr}, words.data(), flag.data(), out.data());
  return out.values()[0];
}
template <class F>
void expect_race(std::initializer_list<const char*> words) {
  if (emulator::detects_races()) expect_fault(words, with_blocks<F>);
}

struct AllWriteOne {
  LOSSK_DEVICE void operator()(uint32_t* words, uint32_t*, uint32_t* out) const {
    words[blockIdx.x * kThreads + threadIdx.x] = 1;
    if (threadIdx.x == 0) out[0] = blockIdx.x;  // line 34
  }
};
LOSSK_TEST(two_owners_of_one_word) {
  expect_race<AllWriteOne>(
      {"race: a store at tests/device/faults/global.cu:34", "and, unordered, a store", "in global memory"});
}

// The block that counts up last sums what all wrote. Each of three steps is needed.
template <bool fence_before, bool barrier, bool fence_after>
struct LastBlockSums {
  LOSSK_DEVICE void operator()(uint32_t* words, uint32_t* flag, uint32_t* out) const {
    words[blockIdx.x * kThreads + threadIdx.x] = 1;
    if (barrier) sync_block();
    if (threadIdx.x) return;
    if (fence_before) fence_device();
    if (atomic_add(flag, 1u) != kBlocks - 1) return;
    if (fence_after) fence_device();
    uint32_t sum = 0;
    for (int i = 0; i < kBlocks * kThreads; ++i) sum += words[i];
    out[0] = sum;
  }
};
LOSSK_TEST(last_block_reads_all) {
  expect((with_blocks<LastBlockSums<true, true, true>>()) == kBlocks * kThreads, "the last block's sum is wrong");
  expect_race<LastBlockSums<false, true, true>>({"race: ", "a load", "a store", "in global memory"});
  expect_race<LastBlockSums<true, false, true>>({"race: "});
  expect_race<LastBlockSums<true, true, false>>({"race: "});
}

// Block 0 hands its words on.
template <bool released, bool acquired>
struct HandOver {
  LOSSK_DEVICE void operator()(uint32_t* words, uint32_t* flag, uint32_t* out) const {
    if (blockIdx.x == 0) {
      words[threadIdx.x] = 5;
      sync_block();
      if (threadIdx.x) return;
      if (released) store_release(flag, 1);
      else atomic_exchange(flag, 1);
    } else if (blockIdx.x == 1 && threadIdx.x == 0) {
      if (acquired)
        while (load_acquire(flag) == 0) backoff(20);
      else
        while (atomic_add(flag, 0u) == 0) backoff(20);
      out[0] = words[kThreads - 1];
    }
  }
};
LOSSK_TEST(flag_from_block_to_block) {
  expect((with_blocks<HandOver<true, true>>()) == 5, "what was released is not there");
  expect_race<HandOver<false, true>>({"race: ", "in global memory"});
  expect_race<HandOver<true, false>>({"race: ", "in global memory"});
}

struct WaitForever {
  LOSSK_DEVICE void operator()(uint32_t*, uint32_t* flag, uint32_t*) const {
    while (load_acquire(flag) == 0) backoff(20);
  }
};
LOSSK_TEST(flag_that_nobody_sets) {
  expect_fault({"livelock", "in backoff at tests/device/faults/global.cu:"}, with_blocks<WaitForever>);
}

}  // namespace
}  // namespace lossk::test
