// cuda/head/cce against plain loops in double: gradients of both paths and types, ragged sizes, several chunks.
#include <cmath>

#include "device/harness.h"
#include "head/cce/params.h"

namespace lossk::test {
namespace {

using head::CceBackwardParams;
using Path = cudaError_t (*)(const CceBackwardParams&, Element, cudaStream_t);

struct Shape {
  int n, v, d, chunk;
};

template <class T>
struct Problem {
  Shape s;
  std::vector<T> input, weight;
  std::vector<int64_t> target;
  std::vector<float> lse, coef;
  std::vector<double> grad_input, grad_weight;

  explicit Problem(const Shape& shape)
      : s(shape),
        input(random_matrix<T>(size_t(s.n) * s.d, 1)),
        weight(random_matrix<T>(size_t(s.v) * s.d, 2 / std::sqrt(float(std::max(s.d, 1))))),
        target(s.n),
        lse(s.n),
        coef(s.n),
        grad_input(size_t(s.n) * s.d),
        grad_weight(size_t(s.v) * s.d) {
    for (int64_t& t : target) t = random_integer(-1, s.v);  // -1 and v: outside
    for (float& c : coef) c = static_cast<float>(random_integer(-4, 4)) / 2;
    const std::vector<float> x = to_floats(input), w = to_floats(weight);
    for (int64_t row = 0; row < s.n; ++row) solve(row, x.data() + row * s.d, w.data());
  }

  void solve(int64_t row, const float* x, const float* w) {
    std::vector<double> z(s.v);
    double sum = 0;
    for (int64_t v = 0; v < s.v; ++v) {
      for (int k = 0; k < s.d; ++k) z[v] += double{x[k]} * w[v * s.d + k];
      sum += std::exp(z[v]);
    }
    const double exact = std::log(sum);
    lse[row] = coef[row] == 0 ? NAN : static_cast<float>(exact);  // an ignored row's lse may be anything
    for (int64_t v = 0; v < s.v; ++v) {
      const double g = coef[row] * (std::exp(z[v] - exact) - (v == target[row]));
      for (int k = 0; k < s.d; ++k) {
        grad_input[row * s.d + k] += g * w[v * s.d + k];
        grad_weight[v * s.d + k] += g * x[k];
      }
    }
  }
};

template <class T>
struct Gradients {
  std::vector<T> input, weight;
};

template <class T>
Gradients<T> run_backward(Path path, const Problem<T>& p, bool want_input = true, bool want_weight = true) {
  const Shape& s = p.s;
  Buffer<T> input(p.input), weight(p.weight), dlogits(size_t(s.n) * s.chunk);
  Buffer<T> grad_input(size_t(s.n) * s.d), grad_weight(size_t(s.v) * s.d);
  Buffer<int64_t> target(p.target);
  Buffer<float> lse(p.lse), coef(p.coef), sum(size_t(s.n) * s.d);
  check(
      path(
          {input.data(), weight.data(), target.data(), lse.data(), coef.data(), dlogits.data(), sum.data(),
           want_input ? grad_input.data() : nullptr, want_weight ? grad_weight.data() : nullptr, s.n, s.v, s.d,
           s.chunk},
          ElementOf<T>::value, nullptr),
      "cce_backward");
  synchronize();
  return {grad_input.values(), grad_weight.values()};
}

// Two roundings to the type, of dlogits and of the gradient, and float32 sums (a gradient that is 0 is off by those).
template <class T>
void expect_close(const std::vector<T>& got, const std::vector<double>& want, const char* name) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double off = to_float(got[i]) - want[i];
    error += off * off;
    norm += want[i] * want[i];
  }
  const double unit = std::is_same_v<T, Bf16> ? 0x1p-8 : 0x1p-11;
  expect(
      std::sqrt(error) <= unit * std::sqrt(norm) + 4e-6 * std::sqrt(double(want.size())),  // nan fails
      std::string(name) + ": off by " + std::to_string(std::sqrt(error / norm)) + " of its norm");
}

const Shape kShapes[] = {
    {1, 1, 8, 256},      {1, 257, 8, 256},    {7, 100, 72, 104},    {64, 130, 136, 256},
    {100, 300, 64, 128}, {128, 256, 64, 256}, {129, 257, 136, 264}, {130, 513, 200, 256},
    {33, 600, 264, 256}, {257, 40, 56, 64},   {70, 511, 128, 200},  {3, 777, 320, 256},
};

template <class T>
void check_gradients(Path path) {
  for (const Shape& s : kShapes) {
    const Problem<T> p(s);
    const auto got = run_backward(path, p);
    const std::string shape = std::to_string(s.n) + " x " + std::to_string(s.v) + " x " + std::to_string(s.d);
    expect_close(got.input, p.grad_input, ("d input of " + shape).c_str());
    expect_close(got.weight, p.grad_weight, ("d weight of " + shape).c_str());
  }
}

// What is not wanted is not written; nothing to sum over is 0.
void check_edges(Path path) {
  const Problem<Bf16> p({20, 70, 64, 32});
  const auto both = run_backward(path, p), only_input = run_backward(path, p, true, false),
             only_weight = run_backward(path, p, false, true);
  expect_equal(to_floats(only_input.input), to_floats(both.input), "d input alone");
  expect_equal(to_floats(only_weight.weight), to_floats(both.weight), "d weight alone");
  for (const Bf16 x : only_input.weight) expect(x.bits == 0xffff, "wrote d weight, which nobody wants");
  for (const Bf16 x : only_weight.input) expect(x.bits == 0xffff, "wrote d input, which nobody wants");
  for (const Shape& s : {Shape{0, 70, 64, 32}, Shape{20, 0, 64, 32}, Shape{20, 70, 0, 32}}) {
    const Problem<Bf16> empty(s);
    const auto got = run_backward(path, empty);
    for (const Bf16 x : got.input) expect(to_float(x) == 0, "d input without a vocabulary is not 0");
    for (const Bf16 x : got.weight) expect(to_float(x) == 0, "d weight without rows is not 0");
  }
}

template <class T>
void check_same_bits(Path path) {
  random_source().seed(9);
  const Problem<T> p({140, 300, 136, 128});
  const auto got = run_backward(path, p);
  static const auto first_seen = got;
  expect_equal(to_floats(got.input), to_floats(first_seen.input), "d input under another schedule");
  expect_equal(to_floats(got.weight), to_floats(first_seen.weight), "d weight under another schedule");
}

LOSSK_TEST(cce_mma_bf16) { check_gradients<Bf16>(head::cce_backward); }
LOSSK_TEST(cce_mma_fp16) { check_gradients<Fp16>(head::cce_backward); }
LOSSK_TEST(cce_mma_edges) { check_edges(head::cce_backward); }
LOSSK_TEST(cce_mma_same_bits) { check_same_bits<Bf16>(head::cce_backward); }

LOSSK_TEST(cce_refuses) {
  alignas(16) float out[4] = {};
  const CceBackwardParams good{out, out, nullptr, out, out, out, out, out, out, 0, 4, 8, 8};
  const auto refuses = [&](auto change) {
    CceBackwardParams p = good;
    change(p);
    expect(head::cce_backward(p, Element::bf16, nullptr) != cudaSuccess, "accepted what it cannot do");
  };
  expect(head::cce_backward(good, Element::fp32, nullptr) != cudaSuccess, "accepted float32");
  refuses([](CceBackwardParams& p) { p.d = 12; });
  refuses([](CceBackwardParams& p) { p.chunk = 12; });
  refuses([](CceBackwardParams& p) { p.chunk = 0; });
  refuses([](CceBackwardParams& p) { p.v = -1; });
  refuses([](CceBackwardParams& p) { p.v = 9, p.input_sum = nullptr; });
  refuses([](CceBackwardParams& p) { p.weight = reinterpret_cast<char*>(p.dlogits) + 2; });
}

#ifndef __CUDACC__
LOSSK_TEST(cce_mma_bank_conflicts) {
  emulator::counters = {};
  run_backward(head::cce_backward, Problem<Bf16>({128, 128, 128, 128}));
  expect(emulator::counters.matrices > 0 && emulator::counters.bank_conflicts == 0, "ldmatrix meets bank conflicts");
}
#endif

#if LOSSK_TEST_SM90
LOSSK_TEST(cce_wgmma_bf16) { check_gradients<Bf16>(head::cce_backward_sm90); }
LOSSK_TEST(cce_wgmma_fp16) { check_gradients<Fp16>(head::cce_backward_sm90); }
LOSSK_TEST(cce_wgmma_edges) { check_edges(head::cce_backward_sm90); }
LOSSK_TEST(cce_wgmma_same_bits) { check_same_bits<Fp16>(head::cce_backward_sm90); }
#endif

}  // namespace
}  // namespace lossk::test
