// cuda/head/lse against plain loops in double: both paths, both types, ragged sizes, any targets.
#include <cmath>
#include <map>
#include <tuple>

#include "device/harness.h"
#include "head/lse/params.h"

namespace lossk::test {
namespace {

using head::LseParams;
using Path = cudaError_t (*)(const LseParams&, Element, cudaStream_t);

struct Shape {
  int n, v, d, segment;
};

struct Exact {
  std::vector<double> lse, target_logit;
};

Exact exact_lse(
    const std::vector<float>& input, const std::vector<float>& weight, const std::vector<int64_t>& target,
    const Shape& s) {
  Exact e;
  for (int64_t row = 0; row < s.n; ++row) {
    std::vector<double> z(s.v);
    double largest = -INFINITY, sum = 0;
    for (int64_t column = 0; column < s.v; ++column) {
      for (int k = 0; k < s.d; ++k) z[column] += double{input[row * s.d + k]} * weight[column * s.d + k];
      largest = std::fmax(largest, z[column]);
    }
    for (const double each : z) sum += std::exp(each - largest);
    e.lse.push_back(s.v ? largest + std::log(sum) : -INFINITY);
    const int64_t t = target[row];
    e.target_logit.push_back(t >= 0 && t < s.v ? z[t] : NAN);
  }
  return e;
}

// Sums of float32 products and an exponential of 2 ulp: a few units in the last place of the largest logit.
void expect_near(const std::vector<float>& got, const std::vector<double>& want, double largest, const char* name) {
  for (size_t i = 0; i < got.size(); ++i) {
    const bool same = std::isnan(want[i])   ? std::isnan(got[i])
                      : std::isinf(want[i]) ? got[i] == want[i]
                                            : std::fabs(got[i] - want[i]) <= 1e-6 * (1 + largest);
    expect(
        same, std::string(name) + "[" + std::to_string(i) + "] is " + std::to_string(got[i]) + ", not " +
                  std::to_string(want[i]));
  }
}

template <class T>
void check_lse(Path path, const Shape& s, float scale = 1) {
  const float each = std::sqrt(scale) / std::pow(static_cast<float>(std::max(s.d, 1)), 0.25f);
  const auto input = random_matrix<T>(size_t(s.n) * s.d, each), weight = random_matrix<T>(size_t(s.v) * s.d, each);
  std::vector<int64_t> target(s.n);
  for (int64_t& t : target) t = random_integer(-1, s.v);  // -1 and v: outside on either side
  if (s.n > 2) {
    target[0] = s.v - 1;
    target[1] = -100;
    target[2] = int64_t{1} << 40;
  }

  const int segments = (s.v + s.segment - 1) / s.segment;
  Buffer<T> x(input), w(weight);
  Buffer<int64_t> t(target);
  Buffer<head::Partial> partial(size_t(2) * segments * s.n);
  Buffer<float> lse(size_t(s.n)), target_logit(size_t(s.n));
  check(
      path(
          {x.data(), w.data(), t.data(), partial.data(), lse.data(), target_logit.data(), s.n, s.v, s.d, s.segment},
          ElementOf<T>::value, nullptr),
      "lse");
  synchronize();

  const Exact e = exact_lse(to_floats(input), to_floats(weight), target, s);
  double largest = 0;
  for (const double z : e.lse) largest = std::isinf(z) ? largest : std::fmax(largest, std::fabs(z));
  expect_near(lse.values(), e.lse, largest, "lse");
  expect_near(target_logit.values(), e.target_logit, largest, "target_logit");
}

// Twelve ragged shapes for each path and type: one tile and several, partial tiles in every direction, segments that
// end inside the vocabulary, more features than a stage holds.
const Shape kShapes[] = {
    {1, 1, 8, 256},      {1, 257, 8, 256},    {7, 100, 72, 256},    {64, 130, 136, 256},
    {100, 300, 64, 256}, {128, 256, 64, 512}, {129, 257, 136, 256}, {130, 513, 200, 512},
    {33, 600, 264, 256}, {257, 40, 56, 256},  {200, 511, 128, 256}, {3, 1025, 320, 512},
};

template <class T>
void check_shapes(Path path) {
  for (const Shape& s : kShapes) check_lse<T>(path, s);
}

LOSSK_TEST(lse_mma_bf16) { check_shapes<Bf16>(head::lse); }
LOSSK_TEST(lse_mma_fp16) { check_shapes<Fp16>(head::lse); }

LOSSK_TEST(lse_mma_edges) {
  check_lse<Bf16>(head::lse, {0, 100, 64, 256});
  check_lse<Bf16>(head::lse, {5, 0, 64, 256});
  check_lse<Bf16>(head::lse, {5, 100, 0, 256});
  check_lse<Bf16>(head::lse, {40, 300, 64, 256}, 1000);  // peaked: all other columns vanish
}

// Rows with inf or nan in them are what torch says they are, and leave the others alone.
void check_extremes(Path path) {
  constexpr int kN = 6, kV = 300, kD = 8;
  std::vector<Bf16> input(kN * kD), weight(kV * kD);
  const float first[kN] = {1, INFINITY, -INFINITY, NAN, 3e38f, 0};
  for (int row = 0; row < kN; ++row) input[row * kD] = bf16(first[row]);
  for (int v = 0; v < kV; ++v) weight[v * kD] = bf16(v == 7 ? 1 : 0.5f);
  Buffer<Bf16> x(input), w(weight);
  Buffer<int64_t> t(std::vector<int64_t>(kN, 7));
  Buffer<head::Partial> partial(size_t(4) * kN);
  Buffer<float> lse(size_t{kN}), logit(size_t{kN});
  check(
      path(
          {x.data(), w.data(), t.data(), partial.data(), lse.data(), logit.data(), kN, kV, kD, 256}, Element::bf16,
          nullptr),
      "lse");
  synchronize();
  const std::vector<double> want{
      std::log(299 * std::exp(0.5) + std::exp(1.0)), INFINITY, -INFINITY, NAN, to_float(bf16(3e38f)), std::log(300.0)};
  const std::vector<float> got = lse.values();
  expect_near({got[0], got[1], got[2], got[3], got[5]}, {want[0], want[1], want[2], want[3], want[5]}, 6, "lse");
  expect(got[4] == static_cast<float>(want[4]), "lse at the largest logits");
}
LOSSK_TEST(lse_mma_extremes) { check_extremes(head::lse); }

LOSSK_TEST(lse_refuses) {
  alignas(16) float out[4] = {};
  const LseParams good{out, out, nullptr, nullptr, out, out, 0, 4, 8, 256};
  const auto refuses = [&](auto change) {
    LseParams p = good;
    change(p);
    expect(head::lse(p, Element::bf16, nullptr) != cudaSuccess, "accepted what it cannot do");
  };
  expect(head::lse(good, Element::bf16, nullptr) == cudaSuccess, "refused an empty batch");
  expect(head::lse(good, Element::fp32, nullptr) != cudaSuccess, "accepted float32");
  refuses([](LseParams& p) { p.d = 12; });
  refuses([](LseParams& p) { p.segment = 100; });
  refuses([](LseParams& p) { p.segment = 0; });
  refuses([](LseParams& p) { p.n = -1; });
  refuses([](LseParams& p) { p.input = reinterpret_cast<char*>(p.lse) + 2; });
}

// The bits depend on the segments and on nothing else: not on the order of blocks and warps, nor on the rows beside.
template <class T>
void check_same_bits(Path path) {
  const Shape s{150, 600, 136, 256};
  random_source().seed(5);
  const auto input = random_matrix<T>(size_t(s.n) * s.d, 0.5f), weight = random_matrix<T>(size_t(s.v) * s.d, 0.5f);
  const std::vector<int64_t> target(s.n, 3);
  const auto rows_from = [&](int first, int count) {
    Buffer<T> x(std::vector<T>(input.begin() + first * s.d, input.begin() + (first + count) * s.d)), w(weight);
    Buffer<int64_t> t(target);
    Buffer<head::Partial> partial(size_t(6) * count);
    Buffer<float> lse(static_cast<size_t>(count)), logit(static_cast<size_t>(count));
    check(
        path(
            {x.data(), w.data(), t.data(), partial.data(), lse.data(), logit.data(), count, s.v, s.d, s.segment},
            ElementOf<T>::value, nullptr),
        "lse");
    synchronize();
    return lse.values();
  };
  const std::vector<float> all = rows_from(0, s.n);
  static const std::vector<float> first_seen = all;
  expect_equal(all, first_seen, "lse under another schedule");
  const std::vector<float> some = rows_from(70, 9);
  expect_equal(some, std::vector<float>(all.begin() + 70, all.begin() + 79), "lse of fewer rows");
}
LOSSK_TEST(lse_mma_same_bits) { check_same_bits<Bf16>(head::lse); }

#ifndef __CUDACC__
LOSSK_TEST(lse_mma_bank_conflicts) {
  emulator::counters = {};
  check_lse<Bf16>(head::lse, {128, 256, 128, 256});
  expect(emulator::counters.matrices > 0 && emulator::counters.bank_conflicts == 0, "ldmatrix meets bank conflicts");
}
#endif

#if LOSSK_TEST_SM90
LOSSK_TEST(lse_wgmma_bf16) { check_shapes<Bf16>(head::lse_sm90); }
LOSSK_TEST(lse_wgmma_fp16) { check_shapes<Fp16>(head::lse_sm90); }
LOSSK_TEST(lse_wgmma_edges) {
  check_lse<Bf16>(head::lse_sm90, {0, 100, 64, 256});
  check_lse<Bf16>(head::lse_sm90, {5, 0, 64, 256});
  check_lse<Bf16>(head::lse_sm90, {5, 100, 0, 256});
  check_lse<Bf16>(head::lse_sm90, {40, 300, 64, 256}, 1000);
}
LOSSK_TEST(lse_wgmma_extremes) { check_extremes(head::lse_sm90); }
LOSSK_TEST(lse_wgmma_same_bits) { check_same_bits<Fp16>(head::lse_sm90); }
#endif

}  // namespace
}  // namespace lossk::test
