// cuda/device/grid.h: kernels that start before the last one ends.
#include "device/conformance/helpers.h"
#include "device/grid.h"

namespace lossk::test {
namespace {

constexpr int kBlocks = 5, kThreads = 64, kKernels = 4;

constexpr uint32_t kRounds = 100;

// Each thread reads what another block of the last kernel wrote, long after that had let this one start.
__global__ void next_of_many(const uint32_t* in, uint32_t* out, uint32_t* counts) {
  launch_dependents();
  const int i = blockIdx.x * blockDim.x + threadIdx.x, all = gridDim.x * blockDim.x;
  for (uint32_t round = 0; round < kRounds; ++round) atomic_add(&counts[i], 1u);
  wait_for_grids();
  out[i] = in[(i + kThreads + 1) % all] * 5;
}
void test_early_start() {
  const auto x = random_bits(kBlocks * kThreads);
  Buffer<uint32_t> counts(std::vector<uint32_t>(x.size(), 0)), a(x), b(x.size()), c(x.size()), d(x.size()), e(x.size());
  const Buffer<uint32_t>* buffers[kKernels + 1] = {&a, &b, &c, &d, &e};
  auto want = x;
  for (int kernel = 0; kernel < kKernels; ++kernel) {
    Launch l = blocks_of(kBlocks, kThreads);
    l.may_start_early = kernel > 0;
    const uint32_t* in = buffers[kernel]->data();
    check(launch(next_of_many, l, in, buffers[kernel + 1]->data(), counts.data()), "launch");
    std::vector<uint32_t> next;
    for (size_t i = 0; i < want.size(); ++i) next.push_back(want[(i + kThreads + 1) % want.size()] * 5);
    want = next;
  }
  synchronize();
  expect_equal(e.values(), want);
  expect_equal(counts.values(), std::vector<uint32_t>(x.size(), kKernels * kRounds), "counts");
}
LOSSK_TEST(launch_dependents) { test_early_start(); }
LOSSK_TEST(wait_for_grids) { test_early_start(); }

}  // namespace
}  // namespace lossk::test
