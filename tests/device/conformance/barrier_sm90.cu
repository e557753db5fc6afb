// cuda/device/barrier.h: mbarriers, fences for copies, and registers that change hands.
#include "device/conformance/helpers.h"
#include "device/tma.h"
#include "device/warp.h"

namespace lossk::test {
namespace {

// By one thread; then everyone may use it.
LOSSK_DEVICE void make_mbarrier(Mbarrier* b, int arrivals) {
  if (threadIdx.x == 0) {
    mbarrier_init(b, arrivals);
    fence_mbarrier_init();
  }
  sync_block();
}

// Mbarriers side by side, of 1, 2, ... arrivals: one thread arrives and writes down which are complete.
constexpr int kMbarriers = 5, kArrivals = 6;
__global__ void arrive_by_oneself(int* complete) {
  LOSSK_SHARED(raw);
  auto* b = reinterpret_cast<Mbarrier*>(raw);
  for (int i = 0; i < kMbarriers; ++i) mbarrier_init(&b[i], i + 1);
  fence_mbarrier_init();
  for (int arrived = 0; arrived <= kArrivals; ++arrived)
    for (int i = 0; i < kMbarriers; ++i) {
      for (uint32_t parity = 0; parity < 2; ++parity)
        complete[(arrived * kMbarriers + i) * 2 + parity] = mbarrier_try_wait(&b[i], parity);
      mbarrier_arrive(&b[i]);
    }
}
void test_arrivals() {
  Buffer<int> complete((kArrivals + 1) * kMbarriers * 2);
  run(arrive_by_oneself, blocks_of(1, 1, kMbarriers * 8), complete.data());
  std::vector<int> want;
  for (int arrived = 0; arrived <= kArrivals; ++arrived)
    for (int i = 0; i < kMbarriers; ++i) {
      const int phase = arrived / (i + 1);
      want.push_back(phase % 2 == 1);  // parity 0: phases 0, 2, ...
      want.push_back(phase % 2 == 0);  // parity 1: what came before phase 0 counts as complete
    }
  expect_equal(complete.values(), want);
}
LOSSK_TEST(mbarrier_init) { test_arrivals(); }
LOSSK_TEST(mbarrier_try_wait) { test_arrivals(); }

// All arrive, then all wait, phase after phase.
__global__ void round_the_block(const uint32_t* in, uint32_t* out) {
  LOSSK_SHARED(raw);
  auto* b = reinterpret_cast<Mbarrier*>(raw);
  auto* words = reinterpret_cast<uint32_t*>(raw + 16);
  const int i = threadIdx.x, size = blockDim.x;
  make_mbarrier(b, size);
  uint32_t x = in[i];
  for (uint32_t phase = 0; phase < 6; ++phase) {
    words[phase % 2 * size + i] = x;
    mbarrier_arrive(b);
    mbarrier_wait(b, phase % 2);
    x = words[phase % 2 * size + (i + 33) % size] + 1;
  }
  out[i] = x;
}
LOSSK_TEST(mbarrier_arrive) {
  for (const int threads : {32, 160}) {
    const auto x = random_bits(threads);
    Buffer<uint32_t> in(x), out(threads);
    run(round_the_block, blocks_of(1, threads, 16 + 8 * threads), in.data(), out.data());
    std::vector<uint32_t> want;
    for (int i = 0; i < threads; ++i) want.push_back(x[(i + 6 * 33) % threads] + 6);
    expect_equal(out.values(), want);
  }
}

// One warp fills a buffer, another empties it: each waits for what it does not arrive at.
constexpr int kRounds = 7;
__global__ void produce_and_consume(const uint32_t* in, uint32_t* out) {
  LOSSK_SHARED(raw);
  auto *full = reinterpret_cast<Mbarrier*>(raw), *empty = full + 1;
  auto* words = reinterpret_cast<uint32_t*>(raw + 16);
  make_mbarrier(full, 32);
  make_mbarrier(empty, 1);
  for (uint32_t round = 0; round < kRounds; ++round) {
    const int lane = lane_index();
    if (threadIdx.x < 32) {
      mbarrier_wait(empty, round % 2 ^ 1);  // at once in the first round
      words[lane] = in[32 * round + lane];
      mbarrier_arrive(full);
    } else {
      mbarrier_wait(full, round % 2);
      out[32 * round + lane] = words[31 - lane];
      sync_warp();
      if (lane == 0) mbarrier_arrive(empty);
    }
  }
}
LOSSK_TEST(mbarrier_wait) {
  const auto x = random_bits(32 * kRounds);
  Buffer<uint32_t> in(x), out(x.size());
  run(produce_and_consume, blocks_of(1, 64, 16 + 4 * 32), in.data(), out.data());
  std::vector<uint32_t> want;
  for (size_t i = 0; i < x.size(); ++i) want.push_back(x[i / 32 * 32 + 31 - i % 32]);
  expect_equal(out.values(), want);
}

// Two arrivals announce 32 and 16 bytes; the phase is complete when both have arrived and all bytes are there.
__global__ void announce(const uint32_t* in, uint32_t* out, int* complete) {
  LOSSK_SHARED(raw);
  auto* b = reinterpret_cast<Mbarrier*>(raw);
  auto* words = reinterpret_cast<uint32_t*>(raw + 16);
  mbarrier_init(b, 2);
  fence_mbarrier_init();
  for (uint32_t phase = 0; phase < 2; ++phase) {
    complete[3 * phase] = mbarrier_try_wait(b, phase);
    mbarrier_arrive_expect(b, 32);
    bulk_load(words, in + 12 * phase, 32, b);
    complete[3 * phase + 1] = mbarrier_try_wait(b, phase);
    mbarrier_arrive_expect(b, 16);
    complete[3 * phase + 2] = mbarrier_try_wait(b, phase);
    bulk_load(words + 8, in + 12 * phase + 8, 16, b);
    mbarrier_wait(b, phase);
    for (int i = 0; i < 12; ++i) out[12 * phase + i] = words[i];
  }
}
LOSSK_TEST(mbarrier_arrive_expect) {
  const auto x = random_bits(24);
  Buffer<uint32_t> in(x), out(24);
  Buffer<int> complete(6);
  run(announce, blocks_of(1, 1, 16 + 48), in.data(), out.data(), complete.data());
  expect_equal(out.values(), x);
  expect_equal(complete.values(), std::vector<int>(6, 0), "complete");
}

// The same 8 bytes are an mbarrier, then a number, then an mbarrier of other arrivals.
__global__ void use_otherwise(const uint32_t* in, uint32_t* out, int* complete) {
  LOSSK_SHARED(raw);
  auto* b = reinterpret_cast<Mbarrier*>(raw);
  mbarrier_init(b, 3);
  mbarrier_arrive(b);
  mbarrier_invalidate(b);
  auto* words = reinterpret_cast<volatile uint32_t*>(raw);
  words[0] = in[0];
  words[1] = in[1];
  out[0] = words[1];
  out[1] = words[0];
  mbarrier_init(b, 1);
  complete[0] = mbarrier_try_wait(b, 0);
  mbarrier_arrive(b);
  complete[1] = mbarrier_try_wait(b, 0);
}
LOSSK_TEST(mbarrier_invalidate) {
  const auto x = random_bits(2);
  Buffer<uint32_t> in(x), out(2);
  Buffer<int> complete(2);
  run(use_otherwise, blocks_of(1, 1, 16), in.data(), out.data(), complete.data());
  expect_equal(out.values(), {x[1], x[0]});
  expect_equal(complete.values(), {0, 1}, "complete");
}

// One thread initialises, another's copy counts on it.
__global__ void load_on_anothers_mbarrier(const uint32_t* in, uint32_t* out) {
  LOSSK_SHARED(raw);
  auto* b = reinterpret_cast<Mbarrier*>(raw);
  auto* words = reinterpret_cast<uint32_t*>(raw + 16);
  if (threadIdx.x == 40) {
    mbarrier_init(b, 1);
    fence_mbarrier_init();
  }
  sync_block();
  if (threadIdx.x == 7) {
    mbarrier_arrive_expect(b, 4 * 64);
    bulk_load(words, in, 4 * 64, b);
  }
  mbarrier_wait(b, 0);
  out[threadIdx.x] = words[threadIdx.x];
}
LOSSK_TEST(fence_mbarrier_init) {
  const auto x = random_bits(64);
  Buffer<uint32_t> in(x), out(64);
  run(load_on_anothers_mbarrier, blocks_of(1, 64, 16 + 4 * 64), in.data(), out.data());
  expect_equal(out.values(), x);
}

// All threads write, one copies it away.
__global__ void store_what_others_wrote(const uint32_t* in, uint32_t* out) {
  LOSSK_SHARED(raw);
  reinterpret_cast<uint32_t*>(raw)[threadIdx.x] = in[threadIdx.x];
  fence_proxy_async();
  sync_block();
  if (threadIdx.x == 50) {
    bulk_store(out, raw, 4 * 64);
    bulk_commit();
    bulk_wait_read<0>();
  }
}
LOSSK_TEST(fence_proxy_async) {
  const auto x = random_bits(64);
  Buffer<uint32_t> in(x), out(64);
  run(store_what_others_wrote, blocks_of(1, 64, 4 * 64), in.data(), out.data());
  expect_equal(out.values(), x);
}

// 384 threads of 168 registers fill the GPU's: one warpgroup keeps 40, so two may have 232, and use them.
constexpr int kNumbers = 160;
template <bool increase>
__global__ void __launch_bounds__(384, 1) share_registers(const uint32_t* in, uint32_t* out, int rounds) {
  if (threadIdx.x < kWarpgroup) {
    decrease_registers<40>();
    out[threadIdx.x] = in[threadIdx.x] + rounds;
    return;
  }
  if constexpr (increase) increase_registers<232>();
  else decrease_registers<160>();
  constexpr int kOwn = increase ? kNumbers : kNumbers / 2;
  uint32_t x[kOwn];
#pragma unroll
  for (int i = 0; i < kOwn; ++i) x[i] = in[threadIdx.x] * (2 * i + 1);
  for (int round = 0; round < rounds; ++round) {
#pragma unroll
    for (int i = 0; i < kOwn; ++i) x[i] += x[(i + 1) % kOwn];
  }
  uint32_t sum = 0;
#pragma unroll
  for (int i = 0; i < kOwn; ++i) sum = 3 * sum + x[i];
  out[threadIdx.x] = sum;
}

template <bool increase>
void test_registers() {
  constexpr int kRounds = 5, kOwn = increase ? kNumbers : kNumbers / 2;
  const auto numbers = random_bits(384);
  std::vector<uint32_t> want;
  for (int thread = 0; thread < 384; ++thread) {
    if (thread < 128) {
      want.push_back(numbers[thread] + kRounds);
      continue;
    }
    std::vector<uint32_t> x;
    for (int i = 0; i < kOwn; ++i) x.push_back(numbers[thread] * (2 * i + 1));
    for (int round = 0; round < kRounds; ++round)
      for (int i = 0; i < kOwn; ++i) x[i] += x[(i + 1) % kOwn];
    want.push_back(0);
    for (const uint32_t each : x) want.back() = 3 * want.back() + each;
  }
  Buffer<uint32_t> in(numbers), out(384);
  run(share_registers<increase>, blocks_of(1, 384), in.data(), out.data(), kRounds);
  expect_equal(out.values(), want);
}
LOSSK_TEST(decrease_registers) { test_registers<false>(); }
LOSSK_TEST(increase_registers) { test_registers<true>(); }

}  // namespace
}  // namespace lossk::test
