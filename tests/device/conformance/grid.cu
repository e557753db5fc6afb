// cuda/device/grid.h: atomics, and flags between blocks.
#include "device/grid.h"

#include <algorithm>

#include "device/barrier.h"
#include "device/conformance/helpers.h"

namespace lossk::test {
namespace {

constexpr int kBlocks = 7, kThreads = 48, kAll = kBlocks * kThreads;

// All threads do the same to one number; each keeps what it got.
template <class T, class F>
__global__ void all_at_once(const T* in, T* number, T* got) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  got[i] = F()(number, in[i]);
}
template <class T>
struct Outcome {
  T last;
  std::vector<T> got;
};
template <class F, class T>
Outcome<T> at_once(const std::vector<T>& in, T start) {
  Buffer<T> from(in), number(std::vector<T>{start}), got(in.size());
  run(all_at_once<T, F>, blocks_of(kBlocks, kThreads), from.data(), number.data(), got.data());
  return {number.values()[0], got.values()};
}
template <class T>
std::vector<T> sorted(std::vector<T> x) {
  std::sort(x.begin(), x.end());
  return x;
}

struct Add {
  template <class T>
  LOSSK_DEVICE T operator()(T* p, T x) const {
    return atomic_add(p, x);
  }
};
LOSSK_TEST(atomic_add) {
  const auto x = random_bits(kAll);
  uint32_t sum = 5;
  for (const uint32_t each : x) sum += each;
  expect(at_once<Add>(x, 5u).last == sum, "the sum of integers");

  const auto floats = random_integers<float>(kAll, -1000, 1000);
  float float_sum = -3;
  for (const float each : floats) float_sum += each;
  expect(at_once<Add>(floats, -3.f).last == float_sum, "the sum of floats");

  // Tickets: everyone gets another number.
  std::vector<uint32_t> tickets;
  std::vector<float> float_tickets;
  for (int i = 0; i < kAll; ++i) {
    tickets.push_back(9 + 2 * i);
    float_tickets.push_back(9.f + 2 * i);
  }
  expect_equal(sorted(at_once<Add>(std::vector<uint32_t>(kAll, 2), 9u).got), tickets);
  expect_equal(sorted(at_once<Add>(std::vector<float>(kAll, 2), 9.f).got), float_tickets);
}

struct Largest {
  LOSSK_DEVICE uint32_t operator()(uint32_t* p, uint32_t x) const { return atomic_max(p, x); }
};
LOSSK_TEST(atomic_max) {
  const auto x = random_bits(kAll);
  const uint32_t start = random_bits(1)[0] / 2, largest = std::max(start, *std::max_element(x.begin(), x.end()));
  const auto [last, got] = at_once<Largest>(x, start);
  expect(last == largest, "not the largest");
  for (const uint32_t old : got)
    expect(old >= start && (old == start || std::count(x.begin(), x.end(), old)), "got what never was there");
  expect(at_once<Largest>(x, 0xffffffffu).got == std::vector<uint32_t>(kAll, 0xffffffffu), "it shrank");
}

struct Exchange {
  LOSSK_DEVICE uint32_t operator()(uint32_t* p, uint32_t x) const { return atomic_exchange(p, x); }
};
LOSSK_TEST(atomic_exchange) {  // nothing is lost, nothing is there twice
  const auto x = random_bits(kAll);
  auto [last, got] = at_once<Exchange>(x, 17u);
  got.push_back(last);
  auto want = x;
  want.push_back(17);
  expect_equal(sorted(got), sorted(want));
}

struct CompareExchange {  // each of them adds, when nobody came between
  LOSSK_DEVICE uint32_t operator()(uint32_t* p, uint32_t x) const {
    uint32_t expected = 0, old;
    while ((old = atomic_compare_exchange(p, expected, expected + x)) != expected) expected = old;
    return old;
  }
};
LOSSK_TEST(atomic_compare_exchange) {
  const auto x = random_bits(kAll);
  auto [last, got] = at_once<CompareExchange>(x, 3u);
  uint32_t sum = 3;
  for (const uint32_t each : x) sum += each;
  expect(last == sum, "the sum");
}

// Blocks in a row: each waits for the one before, changes what that wrote, and lets the next go on. Who comes first is
// first, so that nobody waits for a block that has not started.
__global__ void in_a_row(uint32_t* ticket, uint32_t* flags, uint32_t* rows) {
  LOSSK_SHARED(raw);
  auto* place = reinterpret_cast<uint32_t*>(raw);
  if (threadIdx.x == 0) {
    *place = atomic_add(ticket, 1u);
    while (*place > 0 && load_acquire(&flags[*place - 1]) == 0) backoff(20);
  }
  sync_block();
  const uint32_t at = *place;
  const uint32_t before = at ? rows[(at - 1) * kThreads + (threadIdx.x + 1) % kThreads] : threadIdx.x;
  rows[at * kThreads + threadIdx.x] = 3 * before + at;
  sync_block();
  if (threadIdx.x == 0) store_release(&flags[at], 1);
}
void test_row() {
  Buffer<uint32_t> ticket(std::vector<uint32_t>{0}), flags(std::vector<uint32_t>(kBlocks, 0)), rows(kAll);
  run(in_a_row, blocks_of(kBlocks, kThreads, 16), ticket.data(), flags.data(), rows.data());
  std::vector<uint32_t> want;
  for (int at = 0; at < kBlocks; ++at)
    for (int i = 0; i < kThreads; ++i)
      want.push_back(3 * (at ? want[(at - 1) * kThreads + (i + 1) % kThreads] : i) + at);
  expect_equal(rows.values(), want);
}
LOSSK_TEST(store_release) { test_row(); }
LOSSK_TEST(load_acquire) { test_row(); }

// A lock that every block takes several times.
__global__ void under_a_lock(const uint32_t* in, uint32_t* lock, uint32_t* number) {
  for (int round = 0; round < 3; ++round) {
    while (atomic_compare_exchange(lock, 0, 1) != 0) backoff(40);
    fence_device();
    *number = *number + in[blockIdx.x];
    fence_device();
    atomic_exchange(lock, 0);
  }
}
LOSSK_TEST(backoff) {
  const auto x = random_bits(20);
  uint32_t sum = 11;
  for (const uint32_t each : x) sum += 3 * each;
  Buffer<uint32_t> in(x), lock(std::vector<uint32_t>{0}), number(std::vector<uint32_t>{11});
  run(under_a_lock, blocks_of(20, 1), in.data(), lock.data(), number.data());
  expect_equal(number.values(), {sum});
}

}  // namespace
}  // namespace lossk::test
