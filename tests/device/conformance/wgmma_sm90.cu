// cuda/device/wgmma.h: products of every shape, from every layout.
#include "device/barrier.h"
#include "device/conformance/wgmma_tiles.h"

namespace lossk::test {
namespace {

LOSSK_TEST(matrix_descriptor) {
  struct Field {
    int first, bits;
    uint64_t value;
  };
  for (const Swizzle s : kSwizzles) {
    const uint32_t start = 16 * random_integer(0, 16383), inner = 16 * random_integer(0, 16383),
                   outer = 16 * random_integer(0, 16383);
    const uint64_t got = matrix_descriptor(start, inner, outer, s);
    const uint64_t mode = s == Swizzle::none ? 0 : s == Swizzle::bytes128 ? 1 : s == Swizzle::bytes64 ? 2 : 3;
    for (const auto& [first, bits, value] :
         {Field{0, 14, start / 16},
          {14, 2, 0},
          {16, 14, inner / 16},
          {30, 2, 0},
          {32, 14, outer / 16},
          {46, 16, 0},
          {62, 2, mode}})
      expect((got >> first) % (uint64_t{1} << bits) == value, "bits from " + std::to_string(first) + " on");
  }
  // An address beyond what the field holds spills into no other.
  expect(
      matrix_descriptor(0x40010, 0x40020, 0x40030, Swizzle::none) == matrix_descriptor(16, 32, 48, Swizzle::none),
      "addresses beyond 2^18");
}

enum class From {
  shared,
  shared_a_transposed,
  shared_b_transposed,
  shared_both_transposed,
  registers,
  registers_b_transposed
};
LOSSK_HOST_DEVICE constexpr bool from_registers(From f) {
  return f == From::registers || f == From::registers_b_transposed;
}
LOSSK_HOST_DEVICE constexpr bool a_transposed(From f) {
  return f == From::shared_a_transposed || f == From::shared_both_transposed;
}
LOSSK_HOST_DEVICE constexpr bool b_transposed(From f) {
  return f == From::shared_b_transposed || f == From::shared_both_transposed || f == From::registers_b_transposed;
}

template <class T, int N, From from>
__global__ void __launch_bounds__(kWarpgroup)
    multiply(TileWords a, TileWords b, const uint32_t* a_registers, float* out, bool accumulate) {
  LOSSK_SHARED(raw);
  unsigned char* a_tile = align_shared<1024>(raw, shared_address(raw));
  unsigned char* b_tile = align_shared<1024>(a_tile + 4 * a.words, shared_address(a_tile + 4 * a.words));
  fill_tile(a_tile, a);
  fill_tile(b_tile, b);
  fence_proxy_async();
  sync_block();
  float d[N / 2];
  for (int i = 0; i < N / 2; ++i) d[i] = out[threadIdx.x * (N / 2) + i];
  uint32_t x[kDepth / 16][4];  // before the fence: these are registers of the products, too
  for (int step = 0; step < kDepth / 16; ++step)
    for (int i = 0; i < 4; ++i) x[step][i] = a_registers[(step * kWarpgroup + threadIdx.x) * 4 + i];
  keep(d);
  wgmma_fence();
#pragma unroll
  for (int step = 0; step < kDepth / 16; ++step) {
    const uint64_t y = descriptor(b, b_tile, step);
    if constexpr (from_registers(from)) {
      wgmma<T, N, b_transposed(from)>(d, x[step], y, accumulate || step > 0);
    } else {
      wgmma<T, N, a_transposed(from), b_transposed(from)>(d, descriptor(a, a_tile, step), y, accumulate || step > 0);
    }
  }
  wgmma_commit();
  wgmma_wait<0>();
  keep(d);
  for (int i = 0; i < N / 2; ++i) out[threadIdx.x * (N / 2) + i] = d[i];
}

template <class T, int N, From from>
void test_product(Swizzle swizzle) {
  const bool apart = random_integer(0, 1), accumulate = random_integer(0, 1);
  const auto a = random_integers<T>(64 * kDepth), b = random_integers<T>(N * kDepth);
  const TileLayout a_layout = a_transposed(from) ? m_major(64, apart) : k_major(swizzle, 64, !apart);
  const TileLayout b_layout = b_transposed(from) ? m_major(N, !apart) : k_major(swizzle, N, apart);
  Buffer<uint32_t> a_words(in_shared(a_layout, a)), b_words(in_shared(b_layout, b)), a_registers(in_registers(a));
  const auto before = random_integers<float>(64 * N, -100, 100);
  Buffer<float> out(before);
  TileWords a_tile = tile_words(a_layout, a_words.data());
  if (from_registers(from)) a_tile.words = 0;
  run(multiply<T, N, from>, blocks_of(1, kWarpgroup, a_layout.bytes + b_layout.bytes + 2 * 1024), a_tile,
      tile_words(b_layout, b_words.data()), a_registers.data(), out.data(), accumulate);
  const std::string name = "n " + std::to_string(N) + ", swizzle " + std::to_string(static_cast<int>(swizzle)) +
                           ", from " + std::to_string(static_cast<int>(from)) + (apart ? ", apart" : "") +
                           (accumulate ? ", accumulated" : "") + ": d";
  expect_equal(
      out.values(), product(a, b, N, kDepth / 16, accumulate ? before : std::vector<float>(64 * N)), name.c_str());
}

template <class T, int N>
void test_width() {
  for (const Swizzle s : kSwizzles) {
    test_product<T, N, From::shared>(s);
    test_product<T, N, From::registers>(s);
  }
  test_product<T, N, From::shared_a_transposed>(Swizzle::bytes128);
  test_product<T, N, From::shared_b_transposed>(Swizzle::bytes128);
  test_product<T, N, From::shared_both_transposed>(Swizzle::bytes128);
  test_product<T, N, From::registers_b_transposed>(Swizzle::bytes128);
}
template <class T>
void test_widths() {
  test_width<T, 64>();
  test_width<T, 96>();
  test_width<T, 128>();
  test_width<T, 160>();
  test_width<T, 192>();
  test_width<T, 256>();
}
LOSSK_TEST(wgmma) {
  test_widths<Bf16>();
  test_widths<Fp16>();
}

// ---- when accumulators may be touched ------------------------------------------------------------------------------
constexpr int kN = 64, kOwn = kN / 2;

struct Operands {
  TileWords a, b;
  unsigned char *a_tile, *b_tile;
  LOSSK_DEVICE Operands(const TileWords& a, const TileWords& b, unsigned char* raw)
      : a(a), b(b), a_tile(align_shared<1024>(raw, shared_address(raw))), b_tile(a_tile + 4 * a.words) {
    fill_tile(a_tile, a);
    fill_tile(b_tile, b);
    fence_proxy_async();
    sync_block();
  }
  LOSSK_DEVICE void multiply(float (&d)[kOwn], int step, bool accumulate) const {
    wgmma<Bf16, kN>(d, descriptor(a, a_tile, step), descriptor(b, b_tile, step), accumulate);
  }
};

// Runs `kernel` on fresh tiles, and expects want(products), products[steps] being the accumulators after so many steps.
template <class Want>
void test_flow(void (*kernel)(TileWords, TileWords, float*), int outputs, Want want) {
  const auto a = random_integers<Bf16>(64 * kDepth), b = random_integers<Bf16>(kN * kDepth);
  const TileLayout layout = k_major(Swizzle::bytes128, 64, false);
  Buffer<uint32_t> a_words(in_shared(layout, a)), b_words(in_shared(layout, b));
  Buffer<float> out(outputs * 64 * kN);
  run(kernel, blocks_of(1, kWarpgroup, 2 * layout.bytes + 1024), tile_words(layout, a_words.data()),
      tile_words(layout, b_words.data()), out.data());
  std::vector<std::vector<float>> products;
  for (int steps = 0; steps <= kDepth / 16; ++steps)
    products.push_back(product(a, b, kN, steps, std::vector<float>(64 * kN)));
  std::vector<float> wanted;
  for (int output = 0; output < outputs; ++output)
    for (int i = 0; i < 64 * kN; ++i) wanted.push_back(want(products, output, i));
  expect_equal(out.values(), wanted);
}

LOSSK_DEVICE void put(float* out, int output, const float (&d)[kOwn]) {
  for (int i = 0; i < kOwn; ++i) out[(output * kWarpgroup + threadIdx.x) * kOwn + i] = d[i];
}

// The accumulators are changed by hand between two products.
__global__ void __launch_bounds__(kWarpgroup) touch_between(TileWords a, TileWords b, float* out) {
  LOSSK_SHARED(raw);
  const Operands o(a, b, raw);
  float d[kOwn];
  for (int i = 0; i < kOwn; ++i) d[i] = 1;
  for (int step = 0; step < 3; ++step) {
    for (int i = 0; i < kOwn; ++i) d[i] = 2 * d[i] + i;
    keep(d);
    wgmma_fence();
    o.multiply(d, step, true);
    wgmma_commit();
    wgmma_wait<0>();
    keep(d);
  }
  put(out, 0, d);
}
void test_touched() {
  test_flow(touch_between, 1, [](auto& products, int, int i) {
    float d = 1;
    for (int step = 0; step < 3; ++step) d = 2 * d + i % kOwn + products[step + 1][i] - products[step][i];
    return d;
  });
}
LOSSK_TEST(wgmma_fence) { test_touched(); }
LOSSK_TEST(keep) { test_touched(); }

// A group of one product and a group of two: each wait ends what was committed before the last ones.
__global__ void __launch_bounds__(kWarpgroup) groups_of_products(TileWords a, TileWords b, float* out) {
  LOSSK_SHARED(raw);
  const Operands o(a, b, raw);
  float first[kOwn], second[kOwn];
  for (int i = 0; i < kOwn; ++i) first[i] = second[i] = 7;
  keep(first);
  wgmma_fence();
  o.multiply(first, 0, false);
  wgmma_commit();
  keep(second);
  wgmma_fence();
  o.multiply(second, 0, false);
  o.multiply(second, 1, true);
  wgmma_commit();
  wgmma_wait<1>();
  keep(first);
  put(out, 0, first);
  wgmma_wait<0>();
  keep(second);
  put(out, 1, second);
}
LOSSK_TEST(wgmma_commit) {
  test_flow(groups_of_products, 2, [](auto& products, int output, int i) { return products[output + 1][i]; });
}

// One product under way while the one before is read.
__global__ void __launch_bounds__(kWarpgroup) one_under_way(TileWords a, TileWords b, float* out) {
  LOSSK_SHARED(raw);
  const Operands o(a, b, raw);
  float even[kOwn], odd[kOwn];
  for (int i = 0; i < kOwn; ++i) even[i] = odd[i] = 0;
  const auto start = [&](float (&d)[kOwn], int step) {
    keep(d);
    wgmma_fence();
    o.multiply(d, step, false);
    wgmma_commit();
  };
  start(even, 0);
  start(odd, 1);
  wgmma_wait<1>();
  keep(even);
  put(out, 0, even);
  start(even, 2);
  wgmma_wait<1>();
  keep(odd);
  put(out, 1, odd);
  wgmma_wait<0>();
  keep(even);
  put(out, 2, even);
}
LOSSK_TEST(wgmma_wait) {
  test_flow(one_under_way, 3, [](auto& products, int output, int i) {
    return products[output + 1][i] - products[output][i];
  });
}

}  // namespace
}  // namespace lossk::test
