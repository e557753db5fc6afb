// cuda/device/reduce.h
#include "device/reduce.h"

#include "device/conformance/helpers.h"

namespace lossk::test {
namespace {

template <class T>
struct Two {
  T a, b;
};
template <class Op, class T>
struct OfTwo {
  LOSSK_DEVICE T operator()(Two<T> two) const { return Op()(two.a, two.b); }
};
template <class Op, class T, class Want>
void test_operation(Op, const std::vector<T>& numbers, Want want) {
  std::vector<Two<T>> pairs;
  std::vector<T> wanted;
  for (size_t i = 0; i + 1 < numbers.size(); ++i) {
    pairs.push_back({numbers[i], numbers[i + 1]});
    wanted.push_back(want(numbers[i], numbers[i + 1]));
  }
  expect_equal(on_threads<OfTwo<Op, T>, T>(pairs), wanted);
}
std::vector<int> integers(size_t size) {
  const auto bits = random_bits(size);
  std::vector<int> x;
  for (const uint32_t each : bits) x.push_back(static_cast<int>(each) / 4096);
  return x;
}

LOSSK_TEST(Sum) {
  const auto plus = [](auto a, auto b) { return a + b; };
  test_operation(Sum(), random_integers<float>(100, -1000, 1000), plus);
  test_operation(Sum(), random_bits(100), plus);
  test_operation(Sum(), integers(100), plus);
}
LOSSK_TEST(Max) {
  const auto larger = [](auto a, auto b) { return std::max(a, b); };
  test_operation(Max(), random_integers<float>(100, -5, 5), larger);
  test_operation(Max(), random_bits(100), larger);
  test_operation(Max(), integers(100), larger);
}

// Neighbours first, then pairs of neighbours, ...: one tree for all, whatever rounding makes of it.
template <class T, class Op>
T tree(std::vector<T> x, Op op) {
  while (x.size() > 1) {
    std::vector<T> pairs;
    for (size_t i = 0; i < x.size(); i += 2) pairs.push_back(op(x[i], x[i + 1]));
    x = pairs;
  }
  return x[0];
}
constexpr auto kPlus = [](auto a, auto b) { return a + b; };
constexpr auto kLarger = [](auto a, auto b) { return a > b ? a : b; };
std::vector<float> fractions(size_t size) {
  std::vector<float> x(size);
  for (float& each : x) each = std::uniform_real_distribution<float>(-1, 1)(random_source());
  return x;
}

template <int lanes, class Op, class T>
struct AmongLanes {
  LOSSK_DEVICE T operator()(T x) const { return warp_reduce<lanes>(x, Op()); }
};
template <int lanes, class Op, class T, class Want>
void test_lanes(const std::vector<T>& x, Want want) {
  std::vector<T> wanted;
  for (size_t i = 0; i < x.size(); ++i) {
    const auto first = x.begin() + i / lanes * lanes;
    wanted.push_back(tree(std::vector<T>(first, first + lanes), want));
  }
  expect_equal(on_threads<AmongLanes<lanes, Op, T>, T>(x), wanted, (std::to_string(lanes) + " lanes").c_str());
}
template <int lanes>
void test_warp_reduce() {
  test_lanes<lanes, Sum>(random_bits(128), kPlus);
  test_lanes<lanes, Sum>(fractions(128), kPlus);
  test_lanes<lanes, Max>(integers(128), kLarger);
  test_lanes<lanes, Max>(fractions(128), kLarger);
}
LOSSK_TEST(warp_reduce) {
  test_warp_reduce<1>();
  test_warp_reduce<2>();
  test_warp_reduce<4>();
  test_warp_reduce<8>();
  test_warp_reduce<16>();
  test_warp_reduce<32>();
}

// Twice with the same scratch, at once after one another.
template <class Op, class T>
__global__ void over_the_block(const T* in, T* out) {
  LOSSK_SHARED(raw);
  auto* scratch = reinterpret_cast<T*>(raw);
  const T first = block_reduce(in[threadIdx.x], Op(), scratch);
  out[threadIdx.x] = first;
  out[blockDim.x + threadIdx.x] = block_reduce(in[threadIdx.x] - first, Op(), scratch);
}
template <class Op, class T, class Want>
void test_block(const std::vector<T>& x, Want want) {
  const int threads = static_cast<int>(x.size());
  Buffer<T> in(x), out(2 * x.size());
  run(over_the_block<Op, T>, blocks_of(1, threads, threads / 32 * 4), in.data(), out.data());
  const auto of_block = [&](const std::vector<T>& numbers) {
    T all{};
    for (int w = 0; w < threads / 32; ++w) {
      const T of_warp = tree(std::vector<T>(numbers.begin() + 32 * w, numbers.begin() + 32 * w + 32), want);
      all = w ? want(all, of_warp) : of_warp;
    }
    return all;
  };
  const T first = of_block(x);
  auto rest = x;
  for (T& each : rest) each -= first;
  std::vector<T> wanted(x.size(), first);
  wanted.insert(wanted.end(), x.size(), of_block(rest));
  expect_equal(out.values(), wanted, (std::to_string(threads) + " threads").c_str());
}
LOSSK_TEST(block_reduce) {
  for (const int threads : {32, 96, 256, 512}) {
    test_block<Sum>(random_bits(threads), kPlus);
    test_block<Sum>(fractions(threads), kPlus);
    test_block<Max>(integers(threads), kLarger);
    test_block<Max>(fractions(threads), kLarger);
  }
}

}  // namespace
}  // namespace lossk::test
