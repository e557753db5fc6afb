// cuda/device/tma.h: plain stretches of memory, and groups of stores.
#include "device/conformance/tma_boxes.h"

namespace lossk::test {
namespace {

constexpr int kSizes[] = {16, 48, 272, 4096};
constexpr int kApart = 16;  // bytes: to where copies need no more

__global__ void load_bytes(const uint32_t* in, uint32_t* out, int bytes) {
  LOSSK_SHARED(raw);
  auto* b = reinterpret_cast<Mbarrier*>(raw);
  unsigned char* to = raw + kApart;
  if (threadIdx.x == 0) {
    mbarrier_init(b, 1);
    fence_mbarrier_init();
    mbarrier_arrive_expect(b, bytes);
    bulk_load(to, in + 4, bytes, b);
  }
  sync_block();
  mbarrier_wait(b, 0);
  write_words(out, to, bytes);
}
LOSSK_TEST(bulk_load) {
  for (const int bytes : kSizes) {
    const auto x = random_bits(bytes / 4 + 4);
    Buffer<uint32_t> in(x), out(bytes / 4);
    run(load_bytes, blocks_of(1, kBoxThreads, kApart + bytes), in.data(), out.data(), bytes);
    expect_equal(out.values(), std::vector<uint32_t>(x.begin() + 4, x.end()));
  }
}

template <bool add, class T>
__global__ void store_bytes(const T* in, T* out, int bytes) {
  LOSSK_SHARED(raw);
  unsigned char* from = raw + kApart;
  fill_words(from, in, bytes);
  fence_proxy_async();
  sync_block();
  if (threadIdx.x != 0) return;
  if constexpr (add) bulk_reduce_add(out + 4, from, bytes);
  else bulk_store(out + 4, from, bytes);
  bulk_commit();
  bulk_wait_read<0>();
}
LOSSK_TEST(bulk_store) {
  for (const int bytes : kSizes) {
    const auto x = random_bits(bytes / 4);
    auto want = random_bits(bytes / 4 + 8);  // four words before and after stay
    Buffer<uint32_t> in(x), out(want);
    run(store_bytes<false, uint32_t>, blocks_of(1, kBoxThreads, kApart + bytes), in.data(), out.data(), bytes);
    std::copy(x.begin(), x.end(), want.begin() + 4);
    expect_equal(out.values(), want);
  }
}
LOSSK_TEST(bulk_reduce_add) {
  constexpr int kBlocks = 5;
  for (const int bytes : kSizes) {
    const auto x = random_integers<float>(bytes / 4, -100, 100);
    auto want = random_integers<float>(bytes / 4 + 8, -100, 100);
    Buffer<float> in(x), out(want);
    run(store_bytes<true, float>, blocks_of(kBlocks, kBoxThreads, kApart + bytes), in.data(), out.data(), bytes);
    for (size_t i = 0; i < x.size(); ++i) want[i + 4] += kBlocks * x[i];
    expect_equal(out.values(), want);
  }
}

// ---- groups: one thread stores 64 bytes a time ---------------------------------------------------------------------
constexpr int kWords = 16, kBytes = 4 * kWords, kRounds = 9;

LOSSK_DEVICE void write_and_store(uint32_t* place, const uint32_t* in, uint32_t* out, int round) {
  for (int i = 0; i < kWords; ++i) place[i] = in[round * kWords + i];
  fence_proxy_async();
  bulk_store(out + round * kWords, place, kBytes);
}

// Three stores in two groups and an empty one. What is written is visible to the thread that waited.
__global__ void store_in_groups(const uint32_t* in, uint32_t* out, uint32_t* seen) {
  LOSSK_SHARED(raw);
  auto* words = reinterpret_cast<uint32_t*>(raw);
  write_and_store(words, in, out, 0);
  write_and_store(words + kWords, in, out, 1);
  bulk_commit();
  write_and_store(words + 2 * kWords, in, out, 2);
  bulk_commit();
  bulk_commit();
  bulk_wait<2>();
  for (int i = 0; i < 2 * kWords; ++i) seen[i] = out[i];
  bulk_wait<1>();
  for (int i = 2 * kWords; i < 3 * kWords; ++i) seen[i] = out[i];
}
void test_groups() {
  const auto x = random_bits(3 * kWords);
  Buffer<uint32_t> in(x), out(x.size()), seen(x.size());
  run(store_in_groups, blocks_of(1, 1, 3 * kBytes), in.data(), out.data(), seen.data());
  expect_equal(out.values(), x);
  expect_equal(seen.values(), x, "seen");
}
LOSSK_TEST(bulk_commit) { test_groups(); }
LOSSK_TEST(bulk_wait) { test_groups(); }

// Two places in turn: one is written again while the other's store may still read.
__global__ void store_in_turns(const uint32_t* in, uint32_t* out) {
  LOSSK_SHARED(raw);
  auto* words = reinterpret_cast<uint32_t*>(raw);
  for (int round = 0; round < kRounds; ++round) {
    write_and_store(words + round % 2 * kWords, in, out, round);
    bulk_commit();
    bulk_wait_read<1>();
  }
  bulk_wait_read<0>();
}
LOSSK_TEST(bulk_wait_read) {
  const auto x = random_bits(kRounds * kWords);
  Buffer<uint32_t> in(x), out(x.size());
  run(store_in_turns, blocks_of(1, 1, 2 * kBytes), in.data(), out.data());
  expect_equal(out.values(), x);
}

}  // namespace
}  // namespace lossk::test
