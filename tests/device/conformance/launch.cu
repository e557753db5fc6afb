// cuda/device/launch.h
#include "device/launch.h"

#include "device/barrier.h"
#include "device/conformance/helpers.h"

namespace lossk::test {
namespace {

struct Several {
  int64_t a;
  float b[3];
  char c;
};
// Everyone writes down who it is, and what it was given.
__global__ void who(int* out, Several several, float factor, int words) {
  LOSSK_SHARED(raw);
  auto* shared = reinterpret_cast<int*>(raw);
  for (int i = threadIdx.x; i < words; i += blockDim.x) shared[i] = i;
  sync_block();
  const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  int* mine = out + (block * blockDim.x + threadIdx.x) * 5;
  mine[0] = static_cast<int>(several.a >> 32);
  mine[1] = static_cast<int>(several.b[2] * factor) + several.c;
  mine[2] = blockIdx.x + 10 * blockIdx.y + 100 * blockIdx.z;
  mine[3] = threadIdx.x;
  mine[4] = words ? shared[words - 1 - threadIdx.x] : -1;
}
void test_launch(dim3 blocks, int threads, int words) {
  const int high = random_integer(1, 1000), third = random_integer(-50, 50), letter = random_integer(0, 100);
  const Several several{int64_t{high} << 32, {1, 2, static_cast<float>(third)}, static_cast<char>(letter)};
  const size_t all = size_t{blocks.x} * blocks.y * blocks.z * threads;
  Buffer<int> out(5 * all);
  const Launch l{blocks, threads, 4 * words, nullptr};
  check(launch(who, l, out.data(), several, 3.f, words), "launch");
  synchronize();
  std::vector<int> want;
  for (unsigned z = 0; z < blocks.z; ++z)
    for (unsigned y = 0; y < blocks.y; ++y)
      for (unsigned x = 0; x < blocks.x; ++x)
        for (int i = 0; i < threads; ++i)
          for (const int number :
               {high, 3 * third + letter, static_cast<int>(x + 10 * y + 100 * z), i, words ? words - 1 - i : -1})
            want.push_back(number);
  expect_equal(out.values(), want);
}
LOSSK_TEST(launch) {
  test_launch(dim3(1), 1, 0);
  test_launch(dim3(5), 100, 0);
  test_launch(dim3(3, 2, 4), 32, 64);
  test_launch(dim3(2), 1024, 1024);
  test_launch(dim3(2), 64, 96 * 1024 / 4);  // more than a kernel has without asking
}

__global__ void mark(int* out) { out[blockIdx.x] = blockIdx.x; }
// At least one block fits where it may be launched at all, and no more than its threads leave room for.
LOSSK_TEST(resident_blocks) {
  int each = 0, blocks = 0;
  check(multiprocessors(&each), "multiprocessors");
  check(resident_blocks(who, {1, 512, 64 * 1024, nullptr}, &blocks), "resident_blocks");
  expect(blocks >= each && blocks <= 4 * each && blocks % each == 0, "resident_blocks: " + std::to_string(blocks));
}
LOSSK_TEST(allow_shared) {
  check(allow_shared(who, 80000), "allow_shared");
  test_launch(2, 64, 20000);
}
LOSSK_TEST(multiprocessors) {
  int count = -1;
  check(multiprocessors(&count), "multiprocessors");
  expect(count >= 1 && count < 10000, std::to_string(count) + " multiprocessors");
#ifndef __CUDACC__
  expect(count == emulator::schedule.multiprocessors, "not those of the schedule");
#endif
  Buffer<int> out(count);
  run(mark, blocks_of(count, 1), out.data());
  std::vector<int> want;
  for (int i = 0; i < count; ++i) want.push_back(i);
  expect_equal(out.values(), want);
}

}  // namespace
}  // namespace lossk::test
