// Two heads on the same rows, or one beside numbers: what is summed of their logits, and its gradients, by plain loops
// in double from the definitions.
#pragma once
#include "device/kernels/head_problem.h"
#include "head/compare/params.h"

namespace lossk::test {

struct SideWant {
  std::vector<double> input, weight, bias, scale;
  double squares[3] = {};  // of the terms of d input, d weight and d bias
};

// d input, d weight, d bias and d scale of the sum whose derivative by the logits is g [n, v].
template <class T>
SideWant gradients_of(const HeadProblem<T>& p, const std::vector<double>& g) {
  const int64_t n = p.s.n, v = p.s.v, d = p.s.d;
  SideWant out{std::vector<double>(n * d), std::vector<double>(v * d), std::vector<double>(v), std::vector<double>(n)};
  const std::vector<float> x = to_floats(p.input), w = to_floats(p.weight);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; p.active[i] && j < v; ++j) {
      const double by_x = g[i * v + j] * p.slope[i * v + j], by = by_x * (p.o.scale ? p.scale[i] : 1);
      if (by == 0) continue;
      out.scale[i] += by_x * p.unscaled[i * v + j];
      out.bias[j] += by;
      out.squares[2] += by * by;
      for (int64_t k = 0; k < d; ++k) {
        out.input[i * d + k] += by * w[j * d + k];
        out.weight[j * d + k] += by * x[i * d + k];
        out.squares[0] += by * by * w[j * d + k] * w[j * d + k];
        out.squares[1] += by * by * x[i * d + k] * x[i * d + k];
      }
    }
  return out;
}

template <class T, class U>
struct CompareProblem {
  HeadProblem<T> z;
  HeadProblem<U> u;
  Compare kind;
  double beta;
  std::vector<float> offset, coef;   // [2, n], [n]
  std::vector<int64_t> skip;         // [n]: -1 for none, and outside on either side
  std::vector<double> value, size;   // [n]: the sum, and that of the terms' absolute values
  std::vector<double> lse_z, lse_u;  // [n]
  std::vector<double> dz, du;        // [n, v], of sum coef value

  CompareProblem(const Shape& s, Compare k, const Options& of_z, const Options& of_u, float spread = 2)
      : z(s, of_z, spread),
        u({s.n, s.v, s.d / 2 + 3}, with_all_rows(of_u), spread),
        kind(k),
        beta(k == Compare::hinge ? 1.5 : 0.3),
        offset(2 * size_t(s.n)),
        coef(s.n),
        skip(s.n) {
    for (int i = 0; i < s.n; ++i) {
      coef[i] = static_cast<float>(random_integer(-4, 4)) / 4;
      skip[i] = random_integer(-2, s.v);
    }
    offset = random_matrix<float>(offset.size(), 1);
    for (int i = 0; i < s.n; ++i) offset[s.n + i] = 3 + offset[s.n + i] / 8;  // c: no power is above 1
    u.o.ignored = z.o.ignored, u.active = z.active;  // what u has in ignored rows does not matter
    solve();
  }

  void solve() {
    const int n = z.s.n, v = z.s.v;
    value.assign(n, 0), size.assign(n, 0), lse_z.assign(n, 0), lse_u.assign(n, 0);
    dz.assign(size_t(n) * v, 0), du.assign(dz.size(), 0);
    for (int i = 0; i < n; ++i)
      if (z.active[i]) solve_row(i);
  }

 private:
  static Options with_all_rows(Options o) {
    o.ignored = false;
    return o;
  }
  static double lse_of(const double* x, int count) {
    double max = -INFINITY, sum = 0;
    for (int j = 0; j < count; ++j) max = std::fmax(max, x[j]);
    for (int j = 0; j < count; ++j) sum += std::exp(x[j] - max);
    return max + std::log(sum);
  }
  static double sign(double x) { return (x > 0) - (x < 0); }

  struct Term {
    double value, by_z, by_u;  // of probabilities: by p and by q
  };
  Term of_probabilities_of(double p, double q, double other) const {
    const double b = beta, m = b * q + (1 - b) * p;
    const auto xlog = [](double x, double y) { return x == 0 ? 0 : x * std::log(x / y); };
    const auto power = [](double x, double e) { return std::pow(x, e); };
    switch (kind) {
      case Compare::forward_kl: return {xlog(q, p), -q / p, std::log(q / p) + 1};
      case Compare::reverse_kl: return {xlog(p, q), std::log(p / q) + 1, -p / q};
      case Compare::mean: return {p * other, other, 0};
      case Compare::jsd: return {b * xlog(q, m) + (1 - b) * xlog(p, m), (1 - b) * std::log(p / m), b * std::log(q / m)};
      case Compare::skew_kl: return {xlog(q, m), -(1 - b) * q / m, std::log(q / m) + 1 - b * q / m};
      case Compare::alpha:
        return {
            (b * q + (1 - b) * p - power(q, b) * power(p, 1 - b)) / (b * (1 - b)), (1 - power(q / p, b)) / b,
            (1 - power(p / q, 1 - b)) / (1 - b)};
      default: return {std::fabs(p - q) / 2, sign(p - q) / 2, -sign(p - q) / 2};
    }
  }
  Term of_logits(double x, double y, double shift) const {
    const double d = x - y, s = 1 / (1 + std::exp(-x)), t = 1 / (1 + std::exp(-y));
    switch (kind) {
      case Compare::logit_mse: return {d * d, 2 * d, -2 * d};
      case Compare::bernoulli_kl:
        return {t * std::log(t / s) + (1 - t) * std::log((1 - t) / (1 - s)), s - t, t * (1 - t) * (y - x)};
      case Compare::log_cosh: return {std::log(std::cosh(d / 2)), std::tanh(d / 2) / 2, -std::tanh(d / 2) / 2};
      case Compare::softplus: return {std::log(1 + std::exp(d)), 1 / (1 + std::exp(-d)), 0};
      case Compare::hinge: return {std::fmax(0, beta + d), beta + d > 0 ? 1.0 : 0.0, 0};
      case Compare::above: return {d > 0 ? 1.0 : 0.0, 0, 0};
      case Compare::psl_tanh: {
        const double base = 1 + std::tanh(d), power = std::pow(base * std::exp(-shift), 1 / beta);
        return {power, power / beta * (1 - std::tanh(d)), 0};
      }
      default: {
        const double base = std::fmax(0, 1 + d), power = std::pow(base * std::exp(-shift), 1 / beta);
        return {power, base > 0 ? power / (beta * base) : 0, 0};
      }
    }
  }

  void solve_row(int i) {
    const int v = z.s.v, n = z.s.n;
    const double *x = z.z.data() + size_t(i) * v, *y = u.z.data() + size_t(i) * v;
    double *by_z = dz.data() + size_t(i) * v, *by_u = du.data() + size_t(i) * v;
    if (of_two_heads(kind)) lse_z[i] = lse_of(x, v), lse_u[i] = lse_of(y, v);
    double mean_z = 0, mean_u = 0;
    for (int j = 0; j < v; ++j) {
      Term t{};
      if (of_probabilities(kind)) {
        const double p = std::exp(x[j] - lse_z[i]), q = std::exp(y[j] - lse_u[i]);
        t = of_probabilities_of(p, q, y[j]);
        if (p == 0) t.by_z = 0;
        if (q == 0) t.by_u = 0;
        by_z[j] = p * t.by_z, by_u[j] = kind == Compare::mean ? p : q * t.by_u;
        mean_z += by_z[j], mean_u += by_u[j];
      } else if (of_two_heads(kind)) {
        t = of_logits(x[j], y[j], 0);
        by_z[j] = t.by_z, by_u[j] = t.by_u;
      } else if (j != skip[i]) {
        t = of_logits(x[j], offset[i], offset[n + i]);
        by_z[j] = t.by_z;
      }
      if (std::isnan(t.value)) t.value = 0;  // nobody has mass
      value[i] += t.value, size[i] += std::fabs(t.value);
    }
    for (int j = 0; j < v; ++j) {
      if (of_probabilities(kind)) {
        by_z[j] -= std::exp(x[j] - lse_z[i]) * mean_z;
        if (kind != Compare::mean) by_u[j] -= std::exp(y[j] - lse_u[i]) * mean_u;
      }
      by_z[j] *= coef[i], by_u[j] *= coef[i];
    }
  }
};

}  // namespace lossk::test
