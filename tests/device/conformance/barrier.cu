// cuda/device/barrier.h: barriers of the block, of groups of warps, and the fence between blocks.
#include "device/barrier.h"

#include "device/conformance/helpers.h"
#include "device/grid.h"

namespace lossk::test {
namespace {

// `size` threads hand their numbers round: after each round everyone has what the thread `step` further had.
template <class Sync>
LOSSK_DEVICE uint32_t hand_round(uint32_t* words, int i, int size, int step, int rounds, uint32_t x, Sync sync) {
  for (int round = 0; round < rounds; ++round) {
    words[i] = x;
    sync();
    x = words[(i + step) % size] + 1;
    sync();
  }
  return x;
}

__global__ void round_the_block(const uint32_t* in, uint32_t* out) {
  LOSSK_SHARED(raw);
  const int i = threadIdx.x;
  out[i] = hand_round(reinterpret_cast<uint32_t*>(raw), i, blockDim.x, 37, 3, in[i], [] { sync_block(); });
}
LOSSK_TEST(sync_block) {
  for (const int threads : {32, 100, 256}) {
    const auto x = random_bits(threads);
    Buffer<uint32_t> in(x), out(threads);
    run(round_the_block, blocks_of(1, threads, 4 * threads), in.data(), out.data());
    std::vector<uint32_t> want;
    for (int i = 0; i < threads; ++i) want.push_back(x[(i + 3 * 37) % threads] + 3);
    expect_equal(out.values(), want);
  }
}

// Two warps, three warps and one, at paces of their own.
__global__ void round_the_groups(const uint32_t* in, uint32_t* out) {
  LOSSK_SHARED(raw);
  auto* words = reinterpret_cast<uint32_t*>(raw);
  const int i = threadIdx.x;
  if (i < 64) out[i] = hand_round(words, i, 64, 33, 5, in[i], [] { barrier_sync(1, 64); });
  else if (i < 160) out[i] = hand_round(words + 64, i - 64, 96, 33, 2, in[i], [] { barrier_sync(15, 96); });
  else out[i] = hand_round(words + 160, i - 160, 32, 33, 7, in[i], [] { barrier_sync(7, 32); });
}
LOSSK_TEST(barrier_sync) {
  const auto x = random_bits(192);
  Buffer<uint32_t> in(x), out(192);
  run(round_the_groups, blocks_of(1, 192, 4 * 192), in.data(), out.data());
  std::vector<uint32_t> want;
  for (int i = 0; i < 64; ++i) want.push_back(x[(i + 5 * 33) % 64] + 5);
  for (int i = 0; i < 96; ++i) want.push_back(x[64 + (i + 2 * 33) % 96] + 2);
  for (int i = 0; i < 32; ++i) want.push_back(x[160 + (i + 7 * 33) % 32] + 7);
  expect_equal(out.values(), want);
}

// Two warps produce and go on, the third consumes and lets them write again.
constexpr int kFull = 1, kEmpty = 2, kRounds = 6;
__global__ void produce_and_consume(const uint32_t* in, uint32_t* out) {
  LOSSK_SHARED(raw);
  auto* words = reinterpret_cast<uint32_t*>(raw);
  const int i = threadIdx.x;
  for (int round = 0; round < kRounds; ++round) {
    if (i < 64) {
      if (round) barrier_sync(kEmpty, 96);
      words[i] = in[64 * round + i];
      barrier_arrive(kFull, 96);
    } else {
      barrier_sync(kFull, 96);
      for (int j = i - 64; j < 64; j += 32) out[64 * round + j] = words[63 - j];
      if (round + 1 < kRounds) barrier_arrive(kEmpty, 96);
    }
  }
}
LOSSK_TEST(barrier_arrive) {
  const auto x = random_bits(64 * kRounds);
  Buffer<uint32_t> in(x), out(x.size());
  run(produce_and_consume, blocks_of(1, 96, 4 * 64), in.data(), out.data());
  std::vector<uint32_t> want;
  for (size_t i = 0; i < x.size(); ++i) want.push_back(x[i / 64 * 64 + 63 - i % 64]);
  expect_equal(out.values(), want);
}

// The block that comes last sees what all the others wrote before they counted themselves.
__global__ void last_block_sums(const uint32_t* in, uint32_t* parts, uint32_t* arrived, uint32_t* sum) {
  parts[blockIdx.x] = in[blockIdx.x];
  fence_device();
  if (atomic_add(arrived, 1u) != gridDim.x - 1) return;
  fence_device();
  uint32_t total = 0;
  for (unsigned i = 0; i < gridDim.x; ++i) total += parts[i];
  *sum = total;
}
LOSSK_TEST(fence_device) {
  const auto x = random_bits(20);
  Buffer<uint32_t> in(x), parts(20), arrived(std::vector<uint32_t>{0}), sum(1);
  run(last_block_sums, blocks_of(20, 1), in.data(), parts.data(), arrived.data(), sum.data());
  uint32_t want = 0;
  for (const uint32_t each : x) want += each;
  expect_equal(sum.values(), {want});
}

}  // namespace
}  // namespace lossk::test
