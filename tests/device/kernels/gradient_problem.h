// Coefficients of a head's statistics, and the gradients that they make, by plain loops in double.
#pragma once
#include <functional>

#include "device/kernels/head_problem.h"
#include "head/own/params.h"

namespace lossk::test {

using Filter = std::function<void(std::vector<double>&)>;

struct GradientProblem {
  std::vector<float> lse, lse_excl, row, pick;     // Coefs
  std::vector<double> input, weight, bias, scale;  // of the sum whose gradient linear_stats_backward is
  double squares[3] = {};                          // of the terms of d input, d weight and d bias

  template <class T>
  GradientProblem(const HeadProblem<T>& p, bool full, const Filter& filter = {})
      : lse(2 * p.s.n),
        lse_excl(lse.size()),
        row((full                             ? 6
             : p.o.distance != Distance::none ? 2
                                              : 1) *
            size_t(p.s.n)),
        pick(p.index.size()),
        input(size_t(p.s.n) * p.s.d),
        weight(size_t(p.s.v) * p.s.d),
        bias(p.s.v),
        scale(p.s.n) {
    for (float& c : row) c = static_cast<float>(random_integer(-4, 4)) / 2;
    for (float& c : pick) c = static_cast<float>(random_integer(-4, 4)) / 2;
    solve(p, full, filter);
  }

  // filter(g [n, v]): what a backward over live columns makes of it, the dense term apart.
  template <class T>
  void solve(const HeadProblem<T>& p, bool full, const Filter& filter) {
    for (std::vector<double>* of : {&input, &weight, &bias, &scale}) std::fill(of->begin(), of->end(), 0.0);
    std::fill(std::begin(squares), std::end(squares), 0.0);
    std::vector<float> x = to_floats(p.input);
    for (float& value : x)
      if (std::isnan(value)) value = 0;  // of an ignored row
    const std::vector<float> w = to_floats(p.weight);
    const int64_t n = p.s.n, d = p.s.d;
    std::vector<double> gs(p.z.size());
    for (int64_t i = 0; i < n; ++i)
      for (int64_t v = 0; p.active[i] && v < p.s.v; ++v) gs[i * p.s.v + v] = slope_of(p, i, v, full);
    if (filter) filter(gs);
    for (int64_t i = 0; i < n; ++i) {
      const RowStats& s = p.stats[i];
      lse[i] = static_cast<float>(s.lse), lse[n + i] = static_cast<float>(s.lse - lse[i]);
      lse_excl[i] = static_cast<float>(s.lse_excl), lse_excl[n + i] = static_cast<float>(s.lse_excl - lse_excl[i]);
      if (std::isinf(s.lse_excl)) lse_excl[n + i] = 0;
      if (!p.active[i]) {
        lse[i] = NAN;  // an ignored row's may be anything
        continue;
      }
      for (int64_t v = 0; v < p.s.v; ++v) {
        const bool distance = p.o.distance != Distance::none;
        double dense = full ? row[5 * n + i] * (p.o.aux ? p.aux[v] : 1) * p.slope[i * p.s.v + v] : 0;
        if (distance && !filter) dense = row[n + i] * p.slope[i * p.s.v + v];
        const double g = gs[i * p.s.v + v] + dense;
        const double by = g * (p.o.scale ? p.scale[i] : p.o.distance == Distance::cosine ? p.bias[v] : 1);
        scale[i] += distance ? by : g * p.unscaled[i * p.s.v + v];
        bias[v] += by;
        squares[2] += by * by;
        for (int64_t k = 0; k < d; ++k) {
          input[i * d + k] += by * w[v * d + k];
          weight[v * d + k] += by * x[i * d + k];
          squares[0] += by * by * w[v * d + k] * w[v * d + k];
          squares[1] += by * by * x[i * d + k] * x[i * d + k];
        }
      }
    }
    if (p.o.distance == Distance::none) return;
    for (int64_t i = 0; i < n; ++i) subtract_own(p, x.data() + i * d, scale[i], input.data() + i * d, squares[0]);
    for (int64_t v = 0; v < p.s.v; ++v) subtract_own(p, w.data() + v * d, bias[v], weight.data() + v * d, squares[1]);
  }

 private:
  // A point's own term; what cancels adds to `square`.
  template <class T>
  static void subtract_own(const HeadProblem<T>& p, const float* point, double by, double* grad, double& square) {
    double along = 0, length = 0;
    for (int k = 0; k < p.s.d; ++k) along += grad[k] * point[k], length += double{point[k]} * point[k];
    if (p.o.distance == Distance::cosine) by = length > 0 ? along / length : 0;
    for (int k = 0; k < p.s.d; ++k) grad[k] -= by * point[k], square += by * by * point[k] * point[k];
  }

  // d loss / d (scale (raw + bias)), without the dense term.
  template <class T>
  double slope_of(const HeadProblem<T>& p, int64_t i, int64_t v, bool full) const {
    const int64_t n = p.s.n, at = i * p.s.v + v;
    const double logp = p.z[at] - p.stats[i].lse, q = std::exp(logp), aux = p.o.aux ? p.aux[v] : 1;
    const auto a = [&](int k) { return double{row[k * n + i]}; };
    double g = q * a(0);
    if (full) {
      g += q * (a(1) * logp + a(2) * q + a(3) * aux);
      if (!p.picks(i, v)) g += a(4) * std::exp(p.z[at] - p.stats[i].lse_excl);
    }
    for (int k = 0; k < p.o.picks; ++k)
      if (p.index[i * p.o.picks + k] == v) g -= pick[i * p.o.picks + k];
    return g * p.slope[at];
  }
};

// Two roundings to the type, of dlogits and of the gradient, and float32 sums (a gradient that is 0 is off by those).
// `squares`: of what is rounded, and may cancel.
template <class T>
void expect_close(
    const std::vector<float>& got, const std::vector<double>& want, const std::string& name, double squares = 0,
    double absolute = 1e-5) {
  double error = 0, norm = squares;
  for (size_t i = 0; i < want.size(); ++i) {
    error += (got[i] - want[i]) * (got[i] - want[i]);
    norm += want[i] * want[i];
  }
  const double unit = std::is_same_v<T, float> ? 0x1p-19 : std::is_same_v<T, Bf16> ? 0x1p-7 : 0x1p-10;
  expect(
      std::sqrt(error) <= unit * std::sqrt(norm) + absolute * std::sqrt(double(want.size())),  // nan fails
      name + ": off by " + std::to_string(std::sqrt(error / norm)) + " of its norm");
}

// A distance is squared lengths less a product: near a centre its gradients keep fewer digits.
template <class T>
void expect_gradient(
    const Options& o, const std::vector<float>& got, const std::vector<double>& want, const std::string& name,
    double squares, double absolute) {
  double square = squares;
  for (const double x : want) square += x * x;
  if (o.distance != Distance::none) absolute += 4e-5 * std::sqrt(square / double(std::max<size_t>(1, want.size())));
  expect_close<T>(got, want, name, squares, absolute);
}

// The products' gradient of some points less their own terms.
template <class T>
void take_off_own(
    const HeadOnDevice<T>& x, const float* sum, const float* of, const head::Matrix& points, int rows, const int* ids,
    head::Count count, void* out, bool wide) {
  check(
      head::take_off_own(
          head::OwnParams{x.h.distance, sum, of, points, rows, x.width(), count, ids, out, wide}, x.kType, nullptr),
      "take_off_own");
}

// Rows that are ignored are not written.
template <class T>
std::vector<float> of_active(const HeadProblem<T>& p, std::vector<float> rows) {
  const size_t width = p.s.n ? rows.size() / p.s.n : 0;
  for (int i = 0; i < p.s.n; ++i)
    for (size_t k = 0; !p.active[i] && k < width; ++k) {
      expect(width == 1 || std::isnan(rows[i * width + k]), "wrote d input of an ignored row");
      rows[i * width + k] = 0;
    }
  return rows;
}

}  // namespace lossk::test
