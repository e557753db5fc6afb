// cuda/device/mma.h
#include "device/mma.h"

#include "device/conformance/matrices.h"
#include "device/warp.h"

namespace lossk::test {
namespace {

constexpr int kSteps = 3;  // products that one accumulator adds up

struct Bf16Mma {
  using Type = Bf16;
  LOSSK_DEVICE static void run(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    mma_m16n8k16<Bf16>(d, a, b);
  }
};
struct Fp16Mma {
  using Type = Fp16;
  LOSSK_DEVICE static void run(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    mma_m16n8k16<Fp16>(d, a, b);
  }
};
struct Tf32Mma {
  using Type = float;
  LOSSK_DEVICE static void run(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    mma_m16n8k8_tf32(d, a, b);
  }
};

template <class Mma>
__global__ void multiply(const uint32_t* a, const uint32_t* b, float* d) {
  float sum[4];
  for (int i = 0; i < 4; ++i) sum[i] = d[4 * lane_index() + i];
  for (int step = 0; step < kSteps; ++step) {
    uint32_t x[4], y[2];
    for (int i = 0; i < 4; ++i) x[i] = a[(step * 32 + lane_index()) * 4 + i];
    for (int i = 0; i < 2; ++i) y[i] = b[(step * 32 + lane_index()) * 2 + i];
    Mma::run(sum, x, y);
  }
  for (int i = 0; i < 4; ++i) d[4 * lane_index() + i] = sum[i];
}

template <class Mma>
void test_mma() {
  using T = typename Mma::Type;
  constexpr int kPer = 4 / sizeof(T), kDepth = 8 * kPer, K = kSteps * kDepth;
  const auto a = random_integers<T>(16 * K), b = random_integers<T>(8 * K);
  const auto before = random_integers<float>(16 * 8, -100, 100);
  std::vector<uint32_t> a_registers(kSteps * 32 * 4), b_registers(kSteps * 32 * 2);
  std::vector<float> d(32 * 4), want(32 * 4);
  for (int k = 0; k < K; ++k) {
    const int step = k / kDepth;
    for (int row = 0; row < 16; ++row) {
      const Fragment f = fragment_a(row, k % kDepth, kPer);
      a_registers[(step * 32 + f.lane) * 4 + f.index] |= in_register(a[row * K + k], f.part);
    }
    for (int column = 0; column < 8; ++column) {
      const Fragment f = fragment_b(column, k % kDepth, kPer);
      b_registers[(step * 32 + f.lane) * 2 + f.index] |= in_register(b[column * K + k], f.part);
    }
  }
  for (int row = 0; row < 16; ++row)
    for (int column = 0; column < 8; ++column) {
      const Fragment f = fragment_d(row, column);
      d[4 * f.lane + f.index] = before[8 * row + column];
      float sum = before[8 * row + column];
      for (int k = 0; k < K; ++k) sum += to_float(a[row * K + k]) * to_float(b[column * K + k]);
      want[4 * f.lane + f.index] = sum;
    }
  Buffer<uint32_t> from_a(a_registers), from_b(b_registers);
  Buffer<float> to(d);
  run(multiply<Mma>, blocks_of(1, 32), from_a.data(), from_b.data(), to.data());
  expect_equal(to.values(), want, "d");
}

LOSSK_TEST(mma_m16n8k16) {
  test_mma<Bf16Mma>();
  test_mma<Fp16Mma>();
}
LOSSK_TEST(mma_m16n8k8_tf32) { test_mma<Tf32Mma>(); }

constexpr int M = 3, N = 5;
__global__ void multiply_outer(const float* a, const float* b, float* d) {
  float x[M], y[N], sum[M][N];
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < N; ++j) sum[i][j] = d[(threadIdx.x * M + i) * N + j];
  for (int step = 0; step < kSteps; ++step) {
    for (int i = 0; i < M; ++i) x[i] = a[(threadIdx.x * kSteps + step) * M + i];
    for (int j = 0; j < N; ++j) y[j] = b[(threadIdx.x * kSteps + step) * N + j];
    multiply_add_outer(sum, x, y);
  }
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < N; ++j) d[(threadIdx.x * M + i) * N + j] = sum[i][j];
}
LOSSK_TEST(multiply_add_outer) {
  constexpr int kThreads = 32;
  const auto a = random_integers<float>(kThreads * kSteps * M), b = random_integers<float>(kThreads * kSteps * N);
  auto want = random_integers<float>(kThreads * M * N);
  Buffer<float> from_a(a), from_b(b), to(want);
  run(multiply_outer, blocks_of(1, kThreads), from_a.data(), from_b.data(), to.data());
  for (int t = 0; t < kThreads; ++t)
    for (int step = 0; step < kSteps; ++step)
      for (int i = 0; i < M; ++i)
        for (int j = 0; j < N; ++j)
          want[(t * M + i) * N + j] += a[(t * kSteps + step) * M + i] * b[(t * kSteps + step) * N + j];
  expect_equal(to.values(), want, "d");
}

}  // namespace
}  // namespace lossk::test
