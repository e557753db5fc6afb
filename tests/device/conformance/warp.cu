// cuda/device/warp.h: what the lanes of a warp do together.
#include "device/warp.h"

#include "device/conformance/helpers.h"

namespace lossk::test {
namespace {

constexpr uint32_t kEvenLanes = 0x55555555u;

// The lanes of `mask` do F among themselves, and so do the others.
template <class F>
__global__ void in_two_groups(const uint32_t* in, uint32_t* out, uint32_t mask) {
  const uint32_t x = in[threadIdx.x];
  if (mask >> lane_index() & 1) out[threadIdx.x] = F()(x, mask);
  else out[threadIdx.x] = F()(x, ~mask);
}

// want(x, lane, group): what a lane gets whose group holds x.
template <class F, class Want>
void expect_in_groups(std::initializer_list<uint32_t> masks, const std::vector<uint32_t>& x, Want want) {
  for (const uint32_t mask : masks) {
    Buffer<uint32_t> from(x), to(32);
    run(in_two_groups<F>, blocks_of(1, 32), from.data(), to.data(), mask);
    std::vector<uint32_t> wanted;
    for (int lane = 0; lane < 32; ++lane) wanted.push_back(want(x, lane, mask >> lane & 1 ? mask : ~mask));
    expect_equal(to.values(), wanted);
  }
}
uint32_t some_lanes() { return random_source()() | 1; }

std::vector<uint32_t> numbers(int high) {
  std::vector<uint32_t> x(32);
  for (uint32_t& each : x) each = random_integer(0, high);
  return x;
}

struct LaneIndex {
  LOSSK_DEVICE int operator()(int) const { return lane_index(); }
};
LOSSK_TEST(lane_index) {
  std::vector<int> want;
  for (int i = 0; i < 100; ++i) want.push_back(i % 32);
  expect_equal(on_threads<LaneIndex, int>(std::vector<int>(100)), want);
}

// Each lane leaves a number for the next but one: of the same group, if even and odd lanes go apart.
struct Exchange {
  LOSSK_DEVICE uint32_t operator()(uint32_t x, uint32_t mask) const {
    LOSSK_SHARED(raw);
    auto* words = reinterpret_cast<uint32_t*>(raw);
    for (int round = 0; round < 3; ++round) {
      words[lane_index()] = x + round;
      sync_warp(mask);
      x = words[(lane_index() + 2) % 32];
      sync_warp(mask);
    }
    return x;
  }
};
LOSSK_TEST(sync_warp) {
  for (const uint32_t mask : {kAllLanes, kEvenLanes}) {
    const auto x = numbers(1000000);
    Buffer<uint32_t> from(x), to(32);
    run(in_two_groups<Exchange>, blocks_of(1, 32, 128), from.data(), to.data(), mask);
    std::vector<uint32_t> want;
    for (int lane = 0; lane < 32; ++lane) want.push_back(x[(lane + 6) % 32] + 3);
    expect_equal(to.values(), want);
  }
}

struct FromAnyLane {
  LOSSK_DEVICE uint32_t operator()(uint32_t x, uint32_t mask) const { return shuffle(x, x % 16 * 2, mask); }
};
struct RotateBy {  // the lane is taken modulo 32
  LOSSK_DEVICE uint32_t operator()(uint32_t x, uint32_t mask) const { return shuffle(x, lane_index() + 6, mask); }
};
struct RotateFloats {
  LOSSK_DEVICE uint32_t operator()(uint32_t x, uint32_t mask) const {
    return static_cast<uint32_t>(-shuffle(-static_cast<float>(x), lane_index() ^ 4, mask));
  }
};
LOSSK_TEST(shuffle) {
  expect_in_groups<FromAnyLane>(
      {kAllLanes}, numbers(1000000), [](auto& x, int lane, uint32_t) { return x[x[lane] % 16 * 2]; });
  expect_in_groups<RotateBy>(
      {kAllLanes, kEvenLanes}, numbers(1000000), [](auto& x, int lane, uint32_t) { return x[(lane + 6) % 32]; });
  expect_in_groups<RotateFloats>({kAllLanes, kEvenLanes}, numbers(1000000), [](auto& x, int lane, uint32_t) {
    return x[lane % 8 < 4 ? lane + 4 : lane - 4];
  });
}

template <int lanes>
struct Across {
  LOSSK_DEVICE uint32_t operator()(uint32_t x, uint32_t mask) const {
    const float y = shuffle_xor(static_cast<float>(x), lanes, mask);
    return shuffle_xor(x, lanes, mask) + static_cast<uint32_t>(y);
  }
};
template <int lanes>
void test_across(std::initializer_list<uint32_t> masks) {
  expect_in_groups<Across<lanes>>(masks, numbers(1000000), [](auto& x, int lane, uint32_t) {
    int other = 0;
    for (int bit = 1; bit < 32; bit *= 2) other += lane / bit % 2 != lanes / bit % 2 ? bit : 0;
    return 2 * x[other];
  });
}
LOSSK_TEST(shuffle_xor) {
  test_across<1>({kAllLanes});
  test_across<2>({kAllLanes, kEvenLanes});
  test_across<4>({kAllLanes, kEvenLanes});
  test_across<22>({kAllLanes, kEvenLanes});
  test_across<31>({kAllLanes});
}

template <int lanes>
struct Down {
  LOSSK_DEVICE uint32_t operator()(uint32_t x, uint32_t mask) const {
    return shuffle_down(x, lanes, mask) + static_cast<uint32_t>(shuffle_down(static_cast<float>(x), lanes, mask));
  }
};
template <int lanes>
void test_down(std::initializer_list<uint32_t> masks) {
  expect_in_groups<Down<lanes>>(masks, numbers(1000000), [](auto& x, int lane, uint32_t) {
    return 2 * x[lane + lanes < 32 ? lane + lanes : lane];
  });
}
LOSSK_TEST(shuffle_down) {
  test_down<1>({kAllLanes});
  test_down<2>({kAllLanes, kEvenLanes});
  test_down<16>({kAllLanes, kEvenLanes});
  test_down<31>({kAllLanes});
}

struct Ballot {
  LOSSK_DEVICE uint32_t operator()(uint32_t x, uint32_t mask) const { return warp_ballot(x % 3 == 0, mask); }
};
LOSSK_TEST(warp_ballot) {
  expect_in_groups<Ballot>({kAllLanes, some_lanes()}, numbers(1000000), [](auto& x, int, uint32_t group) {
    uint32_t votes = 0;
    for (int i = 0; i < 32; ++i)
      if (group >> i & 1 && x[i] % 3 == 0) votes |= 1u << i;
    return votes;
  });
}

struct Bits {
  LOSSK_DEVICE int operator()(uint32_t x) const { return count_bits(x); }
};
LOSSK_TEST(count_bits) {
  std::vector<uint32_t> x = {0, ~0u, 1, 1u << 31};
  while (x.size() < 100) x.push_back(random_source()());
  std::vector<int> want;
  for (const uint32_t each : x) {
    int bits = 0;
    for (int i = 0; i < 32; ++i) bits += each >> i & 1;
    want.push_back(bits);
  }
  expect_equal(on_threads<Bits, int>(x), want);
}

struct Match {
  LOSSK_DEVICE uint32_t operator()(uint32_t x, uint32_t mask) const { return match_any(x, mask); }
};
LOSSK_TEST(match_any) {
  expect_in_groups<Match>({kAllLanes, some_lanes()}, numbers(5), [](auto& x, int lane, uint32_t group) {
    uint32_t same = 0;
    for (int i = 0; i < 32; ++i)
      if (group >> i & 1 && x[i] == x[lane]) same |= 1u << i;
    return same;
  });
}

// step(so far, next), from the lowest lane of the group on.
template <class F, class Step>
void test_reduction(Step step) {
  expect_in_groups<F>({kAllLanes, some_lanes()}, random_bits(32), [&](auto& x, int, uint32_t group) {
    bool first = true;
    uint32_t result = 0;
    for (int i = 0; i < 32; ++i)
      if (group >> i & 1) {
        result = first ? x[i] : step(result, x[i]);
        first = false;
      }
    return result;
  });
}

struct Add {
  LOSSK_DEVICE uint32_t operator()(uint32_t x, uint32_t mask) const { return reduce_add(x, mask); }
};
LOSSK_TEST(reduce_add) {
  test_reduction<Add>([](uint32_t a, uint32_t b) { return a + b; });
}

struct Largest {
  LOSSK_DEVICE uint32_t operator()(uint32_t x, uint32_t mask) const { return reduce_max(x, mask); }
};
LOSSK_TEST(reduce_max) {
  test_reduction<Largest>([](uint32_t a, uint32_t b) { return a < b ? b : a; });
}

struct Least {
  LOSSK_DEVICE uint32_t operator()(uint32_t x, uint32_t mask) const { return reduce_min(x, mask); }
};
LOSSK_TEST(reduce_min) {
  test_reduction<Least>([](uint32_t a, uint32_t b) { return a < b ? a : b; });
}

struct Or {  // few bits, or they would be all ones
  LOSSK_DEVICE uint32_t operator()(uint32_t x, uint32_t mask) const { return reduce_or(x & x >> 9 & x >> 17, mask); }
};
LOSSK_TEST(reduce_or) {
  expect_in_groups<Or>({kAllLanes, some_lanes()}, random_bits(32), [](auto& x, int, uint32_t group) {
    uint32_t all = 0;
    for (int i = 0; i < 32; ++i)
      if (group >> i & 1) all |= x[i] & x[i] >> 9 & x[i] >> 17;
    return all;
  });
}

}  // namespace
}  // namespace lossk::test
