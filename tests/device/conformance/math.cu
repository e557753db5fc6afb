// cuda/device/math.h
#include "device/math.h"

#include <bit>
#include <cmath>
#include <limits>

#include "device/conformance/helpers.h"

namespace lossk::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kSubnormal = 0x1p-130f;

std::vector<float> uniform(float low, float high, size_t size = 1000) {
  std::vector<float> x(size);
  for (float& each : x) each = std::uniform_real_distribution<float>(low, high)(random_source());
  return x;
}
// Any number that is not nan or infinite, subnormal ones among them.
std::vector<float> any_numbers(size_t size = 2000) {
  std::vector<float> x;
  while (x.size() < size) {
    const auto number = std::bit_cast<float>(static_cast<uint32_t>(random_source()()));
    if (std::isfinite(number)) x.push_back(number);
  }
  return x;
}

std::string number(float x) {
  char text[32];
  snprintf(text, sizeof text, "%a", static_cast<double>(x));
  return text;
}

struct Point {
  float x, y;
};
// Exactly these, also as to the sign of zero. Any nan is as good as another.
template <class F>
void expect_points(const std::vector<Point>& points) {
  std::vector<float> x;
  for (const Point& p : points) x.push_back(p.x);
  const auto got = on_threads<F, float>(x);
  for (size_t i = 0; i < points.size(); ++i) {
    const bool same = std::isnan(points[i].y) ? std::isnan(got[i])
                                              : std::bit_cast<uint32_t>(got[i]) == std::bit_cast<uint32_t>(points[i].y);
    expect(same, "of " + number(x[i]) + " is " + number(got[i]) + ", not " + number(points[i].y));
  }
}

// want(x) in double; the error below `relative` of it, or below `absolute`.
template <class F, class Want>
void expect_near(const std::vector<float>& x, double relative, double absolute, Want want) {
  const auto got = on_threads<F, float>(x);
  for (size_t i = 0; i < x.size(); ++i) {
    const double exact = want(static_cast<double>(x[i])), error = std::fabs(got[i] - exact);
    expect(
        error <= std::fmax(relative * std::fabs(exact), absolute),
        "of " + number(x[i]) + " is " + number(got[i]) + ", not near enough");
  }
}

struct Exp2 {
  LOSSK_DEVICE float operator()(float x) const { return exp2_approx(x); }
};
LOSSK_TEST(exp2_approx) {
  std::vector<Point> points{{0, 1},          {-0.f, 1},    {kSubnormal, 1},  {-kSubnormal, 1},  {kInfinity, kInfinity},
                            {-kInfinity, 0}, {kNan, kNan}, {128, kInfinity}, {1000, kInfinity}, {-127, 0},
                            {-149, 0},       {-1000, 0},   {-1e30f, 0}};
  for (int i = -126; i < 128; ++i) points.push_back({static_cast<float>(i), std::ldexp(1.f, i)});
  expect_points<Exp2>(points);
  // 2 ulp, each at most 2^-23 of the result.
  for (const float reach : {1.f, 125.f})
    expect_near<Exp2>(uniform(-reach, reach), 0x1p-22, 0, [](double x) { return std::exp2(x); });
}

struct Log2 {
  LOSSK_DEVICE float operator()(float x) const { return log2_approx(x); }
};
LOSSK_TEST(log2_approx) {
  std::vector<Point> points{{0, -kInfinity}, {-0.f, -kInfinity}, {kSubnormal, -kInfinity}, {-kSubnormal, -kInfinity},
                            {-1, kNan},      {-kInfinity, kNan}, {kInfinity, kInfinity},   {kNan, kNan}};
  expect_points<Log2>(points);
  const auto log2 = [](double x) { return std::log2(x); };
  std::vector<float> powers;
  for (int i = -126; i < 128; ++i) powers.push_back(std::ldexp(1.f, i));
  expect_near<Log2>(powers, 0x1p-22, 0, log2);  // not exact: of 2^-126 an H200 says -125.99999
  expect_near<Log2>(uniform(0.5f, 2), 0, 0x1p-22, log2);
  expect_near<Log2>(uniform(2, 1e6f), 0x1p-22, 0, log2);
  expect_near<Log2>(uniform(1e-30f, 0.4f), 0x1p-22, 0, log2);
}

struct Reciprocal {
  LOSSK_DEVICE float operator()(float x) const { return reciprocal_approx(x); }
};
LOSSK_TEST(reciprocal_approx) {
  std::vector<Point> points{{0, kInfinity},     {-0.f, -kInfinity},      {kInfinity, 0},
                            {-kInfinity, -0.f}, {kSubnormal, kInfinity}, {-kSubnormal, -kInfinity},
                            {kNan, kNan},       {0x1p127f, 0},           {-0x1p127f, -0.f}};
  for (int i = -126; i < 127; ++i)
    for (const float sign : {1.f, -1.f}) points.push_back({sign * std::ldexp(1.f, i), sign * std::ldexp(1.f, -i)});
  expect_points<Reciprocal>(points);
  const auto inverse = [](double x) { return 1 / x; };
  expect_near<Reciprocal>(uniform(1, 2), 0x1p-23, 0, inverse);
  expect_near<Reciprocal>(uniform(-1e6f, 1e6f), 0x1p-23, 0, inverse);
}

struct Tanh {
  LOSSK_DEVICE float operator()(float x) const { return tanh_approx(x); }
};
LOSSK_TEST(tanh_approx) {
  expect_points<Tanh>({{0, 0}, {-0.f, -0.f}, {kInfinity, 1}, {-kInfinity, -1}, {100, 1}, {-100, -1}, {kNan, kNan}});
  for (const float reach : {0.01f, 1.f, 10.f})
    expect_near<Tanh>(uniform(-reach, reach), 0x1p-11 * 1.01, 0, [](double x) { return std::tanh(x); });
}

struct Pair {
  float a, b;
};
struct Maximum {
  LOSSK_DEVICE float operator()(Pair p) const { return maximum(p.a, p.b); }
};
LOSSK_TEST(maximum) {
  std::vector<Pair> pairs{{kNan, 2},      {-3, kNan},      {-kInfinity, kNan},
                          {kInfinity, 1}, {-kInfinity, 1}, {kInfinity, -kInfinity}};
  std::vector<float> want{2, -3, -kInfinity, kInfinity, 1, kInfinity};
  const auto x = any_numbers(), y = any_numbers();
  for (size_t i = 0; i < x.size(); ++i) {
    pairs.push_back({x[i], y[i]});
    want.push_back(x[i] > y[i] ? x[i] : y[i]);
  }
  expect_equal(on_threads<Maximum, float>(pairs), want);
}

struct Triple {
  float a, b, c;
};
struct MultiplyAdd {
  LOSSK_DEVICE float operator()(Triple t) const { return multiply_add(t.a, t.b, t.c); }
};
LOSSK_TEST(multiply_add) {
  constexpr float kOdd = 1 + 0x1p-12f;  // its square has a bit that rounding the product would lose
  std::vector<Triple> in{{kOdd, kOdd, -(1 + 0x1p-11f)}};
  std::vector<float> want{0x1p-24f};
  const auto numbers = uniform(-1000, 1000, 3000);
  for (size_t i = 0; i < 1000; ++i) {
    in.push_back({numbers[i], numbers[1000 + i], 1000 * numbers[2000 + i]});
    // A product of two floats is exact in double, and so long doubles hold the sum.
    const long double sum = static_cast<double>(in.back().a) * in.back().b + static_cast<long double>(in.back().c);
    want.push_back(static_cast<float>(sum));
  }
  expect_equal(on_threads<MultiplyAdd, float>(in), want);
}

// Ties, both ways; overflow and what just does not; subnormal results; zeros of both signs.
const std::vector<float> kRounded{0,
                                  -0.f,
                                  1,
                                  1 + 0x1p-8f,
                                  1 + 0x3p-8f,
                                  1 + 0x1.8p-8f,
                                  -1 - 0x1p-8f,
                                  1 + 0x1p-11f,
                                  1 + 0x3p-11f,
                                  65504,
                                  65519.996f,
                                  65520,
                                  -65520,
                                  kInfinity,
                                  -kInfinity,
                                  0x1p-14f,
                                  0x1p-15f,
                                  0x1.8p-24f,
                                  0x1p-24f,
                                  0x1p-25f,
                                  0x1.8p-25f,
                                  -0x3p-26f,
                                  kSubnormal,
                                  0x1p-149f,
                                  0x1.fep127f,
                                  0x1.fffffep127f};

template <class F, class Convert>
void test_pack(const std::vector<float>& x, Convert convert) {
  std::vector<Pair> pairs;
  std::vector<uint32_t> want;
  for (size_t i = 0; i < x.size(); ++i) {
    pairs.push_back({x[i], x[(i + 1) % x.size()]});
    want.push_back(convert(pairs[i].a).bits | uint32_t{convert(pairs[i].b).bits} << 16);
  }
  expect_equal(on_threads<F, uint32_t>(pairs), want);
}
struct PackBf16 {
  LOSSK_DEVICE uint32_t operator()(Pair p) const { return pack_bf16(p.a, p.b); }
};
LOSSK_TEST(pack_bf16) {
  test_pack<PackBf16>(kRounded, bf16);
  test_pack<PackBf16>(any_numbers(), bf16);
  for (const uint32_t bits : on_threads<PackBf16, uint32_t>(std::vector<Pair>{{kNan, kNan}, {-kNan, -kNan}}))
    expect((bits & 0x7fff) > 0x7f80 && (bits >> 16 & 0x7fff) > 0x7f80, "nan is not nan");
}
struct PackFp16 {
  LOSSK_DEVICE uint32_t operator()(Pair p) const { return pack_fp16(p.a, p.b); }
};
LOSSK_TEST(pack_fp16) {
  test_pack<PackFp16>(kRounded, fp16);
  test_pack<PackFp16>(uniform(-70000, 70000), fp16);
  test_pack<PackFp16>(uniform(-0x1p-13f, 0x1p-13f), fp16);
  for (const uint32_t bits : on_threads<PackFp16, uint32_t>(std::vector<Pair>{{kNan, kNan}, {-kNan, -kNan}}))
    expect((bits & 0x7fff) > 0x7c00 && (bits >> 16 & 0x7fff) > 0x7c00, "nan is not nan");
}

struct WidenBf16 {
  LOSSK_DEVICE float operator()(uint32_t bits) const { return widen_bf16(bits); }
};
struct WidenFp16 {
  LOSSK_DEVICE float operator()(uint32_t bits) const { return widen_fp16(bits); }
};

// Every 16 bits there are; a nan stays one.
template <class Widen, class T>
void test_widen() {
  std::vector<uint32_t> all(1 << 16);
  for (uint32_t i = 0; i < all.size(); ++i) all[i] = i;
  const std::vector<float> got = on_threads<Widen, float>(all);
  for (uint32_t i = 0; i < all.size(); ++i) {
    const float want = to_float(T{static_cast<uint16_t>(i)});
    expect(
        std::isnan(want) ? std::isnan(got[i]) : got[i] == want && std::signbit(got[i]) == std::signbit(want),
        "16 bits are widened to another number");
  }
}
LOSSK_TEST(widen_bf16) { test_widen<WidenBf16, Bf16>(); }
LOSSK_TEST(widen_fp16) { test_widen<WidenFp16, Fp16>(); }

struct ToTf32 {
  LOSSK_DEVICE uint32_t operator()(float x) const { return to_tf32(x); }
};
LOSSK_TEST(to_tf32) {
  std::vector<float> x{
      0, -0.f, 1, 1 + 0x1p-11f, -1 - 0x1p-11f, 1 + 0x1.ffep-12f, 1 + 0x3p-11f, 2 - 0x1p-20f, kInfinity, -kInfinity};
  std::vector<float> want{0, -0.f, 1, 1 + 0x1p-10f, -1 - 0x1p-10f, 1, 1 + 0x1p-9f, 2, kInfinity, -kInfinity};
  for (const float number : any_numbers()) {
    if (std::fabs(number) < 0x1p-126f || std::fabs(number) > 0x1p127f) continue;
    const double step = std::ldexp(1., std::ilogb(number) - 10);
    x.push_back(number);
    want.push_back(static_cast<float>(std::copysign(std::floor(std::fabs(number) / step + 0.5) * step, number)));
  }
  std::vector<uint32_t> bits;
  for (const float number : want) bits.push_back(std::bit_cast<uint32_t>(number));
  expect_equal(on_threads<ToTf32, uint32_t>(x), bits);
}

}  // namespace
}  // namespace lossk::test
