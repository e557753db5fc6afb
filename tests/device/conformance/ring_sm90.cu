// cuda/device/ring.h
#include "device/ring.h"

#include "device/conformance/helpers.h"
#include "device/tma.h"
#include "device/warp.h"

namespace lossk::test {
namespace {

constexpr int kTurns = 13;

template <int stages>
__global__ void walk(int* stage, uint32_t* phase) {
  RingTurn<stages> turn;
  for (int i = 0; i < kTurns; ++i, ++turn) {
    stage[i] = turn.stage;
    phase[i] = turn.phase;
  }
}
template <int stages>
void test_turn() {
  Buffer<int> stage(kTurns);
  Buffer<uint32_t> phase(kTurns);
  run(walk<stages>, blocks_of(1, 1), stage.data(), phase.data());
  std::vector<int> stages_wanted;
  std::vector<uint32_t> phases_wanted;
  for (int i = 0; i < kTurns; ++i) {
    stages_wanted.push_back(i % stages);
    phases_wanted.push_back(i / stages % 2);
  }
  expect_equal(stage.values(), stages_wanted, "stage");
  expect_equal(phase.values(), phases_wanted, "phase");
}
LOSSK_TEST(RingTurn) {
  test_turn<1>();
  test_turn<2>();
  test_turn<3>();
  test_turn<4>();
  test_turn<7>();
}

// One warp produces what `consumers` warps read, each turn in two copies; every warp releases each stage once.
constexpr int kWords = 64;
template <int stages>
__global__ void pass_through(const uint32_t* in, uint32_t* out, int turns) {
  LOSSK_SHARED(raw);
  auto* ring = reinterpret_cast<Ring<stages>*>(raw);
  auto* words = reinterpret_cast<uint32_t*>(raw + 16 * stages);
  const int warp = threadIdx.x / kWarp, consumers = blockDim.x / kWarp - 1;
  if (threadIdx.x == 0) ring->init(consumers);
  sync_block();
  if (warp == 0) {
    if (lane_index() != 0) return;
    RingTurn<stages> turn;
    for (int i = 0; i < turns; ++i, ++turn) {
      Mbarrier* b = ring->fill(turn, kWords * 4);
      uint32_t* to = words + turn.stage * kWords;
      bulk_load(to, in + i * kWords, kWords * 2, b);
      bulk_load(to + kWords / 2, in + i * kWords + kWords / 2, kWords * 2, b);
    }
    return;
  }
  uint32_t sum = warp;
  RingTurn<stages> turn;
  for (int i = 0; i < turns; ++i, ++turn) {
    ring->wait_full(turn);
    for (int j = lane_index(); j < kWords; j += kWarp) sum = 3 * sum + words[turn.stage * kWords + j];
    sync_warp();
    if (lane_index() == 0) ring->release(turn, 0);
  }
  out[(static_cast<int>(blockIdx.x) * consumers - 1) * kWarp + threadIdx.x] = sum;
}
template <int stages>
void test_ring(int consumers) {
  for (const int turns : {0, 1, stages, 3 * stages + 1, 20}) {
    const auto x = random_bits(kWords * turns + 4);
    Buffer<uint32_t> in(x), out(2 * kWarp * consumers);
    run(pass_through<stages>, blocks_of(2, kWarp * (1 + consumers), stages * (16 + kWords * 4)), in.data(), out.data(),
        turns);
    std::vector<uint32_t> want;
    for (int thread = 0; thread < kWarp * consumers; ++thread) {
      uint32_t sum = 1 + thread / kWarp;
      for (int i = 0; i < turns; ++i)
        for (int j = thread % kWarp; j < kWords; j += kWarp) sum = 3 * sum + x[i * kWords + j];
      want.push_back(sum);
    }
    want.insert(want.end(), want.begin(), want.begin() + kWarp * consumers);  // the other block's
    expect_equal(out.values(), want);
  }
}
LOSSK_TEST(Ring) {
  test_ring<1>(1);
  test_ring<2>(3);
  test_ring<3>(2);
  test_ring<4>(1);
}

}  // namespace
}  // namespace lossk::test
