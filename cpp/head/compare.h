// A row's logits z beside other numbers u: a second head's logits, or a number of the row. What divergences and
// pairwise losses sum over the vocabulary, and its derivatives: the same text for a CPU's vectors and for a GPU.
//
// M is the arithmetic: M::T a number, M::V one or a vector of them, fill, exp, log, tanh.
#pragma once
#include "common/math.h"

namespace lossk {

enum class Compare : int {
  // p = softmax(z) and q = softmax(u)
  forward_kl,  // sum q log(q / p)
  reverse_kl,  // sum p log(p / q)
  mean,        // sum p u
  jsd,         // sum beta q log(q / m) + (1 - beta) p log(p / m), m = beta q + (1 - beta) p
  skew_kl,     // sum q log(q / m), the same m
  alpha,       // (1 - sum q^beta p^(1 - beta)) / (beta (1 - beta))
  tvd,         // sum |p - q| / 2
  // z and u
  logit_mse,     // sum (z - u)^2
  bernoulli_kl,  // sum of the Kullback-Leibler divergences of sigmoid(z) from sigmoid(u)
  log_cosh,      // sum log cosh((z - u) / 2)
  // z and two numbers u, c of its row; a column may be left out
  softplus,  // sum log(1 + exp(z - u))
  hinge,     // sum max(0, beta + z - u)
  above,     // how many z > u; no derivative
  psl_tanh,  // sum ((1 + tanh(z - u)) exp(-c))^(1 / beta)
  psl_relu,  // sum (max(0, 1 + z - u) exp(-c))^(1 / beta)
};
constexpr const char* kCompareNames[] = {"forward_kl", "reverse_kl", "mean",      "jsd",          "skew_kl",
                                         "alpha",      "tvd",        "logit_mse", "bernoulli_kl", "log_cosh",
                                         "softplus",   "hinge",      "above",     "psl_tanh",     "psl_relu"};

LOSSK_BOTH constexpr bool of_probabilities(Compare k) { return k <= Compare::tvd; }
LOSSK_BOTH constexpr bool in_one_pass(Compare k) { return k <= Compare::mean; }  // its sums need no lse beforehand
LOSSK_BOTH constexpr bool of_two_heads(Compare k) { return k <= Compare::log_cosh; }

// Trap: nvcc lets nothing that is for both sides call a kernel's lambda, which is for the GPU alone.
#ifdef __CUDACC__
#define LOSSK_HERE __device__ inline
#else
#define LOSSK_HERE inline
#endif

// call.template operator()<k>() of the kind.
template <class Call>
LOSSK_HERE auto with_kind(Compare kind, const Call& call) {
  switch (kind) {
    case Compare::forward_kl: return call.template operator()<Compare::forward_kl>();
    case Compare::reverse_kl: return call.template operator()<Compare::reverse_kl>();
    case Compare::mean: return call.template operator()<Compare::mean>();
    case Compare::jsd: return call.template operator()<Compare::jsd>();
    case Compare::skew_kl: return call.template operator()<Compare::skew_kl>();
    case Compare::alpha: return call.template operator()<Compare::alpha>();
    case Compare::tvd: return call.template operator()<Compare::tvd>();
    case Compare::logit_mse: return call.template operator()<Compare::logit_mse>();
    case Compare::bernoulli_kl: return call.template operator()<Compare::bernoulli_kl>();
    case Compare::log_cosh: return call.template operator()<Compare::log_cosh>();
    case Compare::softplus: return call.template operator()<Compare::softplus>();
    case Compare::hinge: return call.template operator()<Compare::hinge>();
    case Compare::above: return call.template operator()<Compare::above>();
    case Compare::psl_tanh: return call.template operator()<Compare::psl_tanh>();
    default: return call.template operator()<Compare::psl_relu>();
  }
}

template <class V>
struct Two {
  V z, u;
};

template <class M>
struct Comparison {
  using T = typename M::T;
  using V = typename M::V;

  // A divergence is sum f(p, q), f homogeneous of degree 1, so f = p f_p + q f_q: of one entry these two terms, each
  // with sum c (p - q), which adds up to 0, so that no term is large beside its sum. With A and B their sums over the
  // vocabulary: divergence = A + B, d / dz = z - p A, d / du = u - q B.
  template <Compare k>
  LOSSK_BOTH static Two<V> terms(T beta, V logp, V logq, V p, V q, V u) {
    const V zero = M::fill(0), d = logp - logq;
    if constexpr (k == Compare::forward_kl) {
      return {p - q, q == 0 ? zero : -q * d};
    } else if constexpr (k == Compare::reverse_kl) {
      return {p == 0 ? zero : p * d, q - p};
    } else if constexpr (k == Compare::mean) {
      return {p == 0 ? zero : p * u, zero};
    } else if constexpr (k == Compare::jsd) {
      const Two<V> over = over_mixture(d, beta);
      return {p == 0 ? zero : (1 - beta) * p * over.z, q == 0 ? zero : beta * q * over.u};
    } else if constexpr (k == Compare::skew_kl) {
      const V mixture = beta * q + (1 - beta) * p, share = (1 - beta) * (p - q);  // mixture - q
      const V ratio = mixture == 0 ? zero : share / mixture;  // it may be 0 by underflow where neither p nor q is
      const Two<V> over = over_mixture(d, beta);
      return {p == 0 ? zero : (1 - beta) * p * ratio, q == 0 ? zero : q * (over.u + beta * ratio)};
    } else if constexpr (k == Compare::alpha) {
      // p - g and q - g, g = q^beta p^(1 - beta); where one is near g not as a difference. Trap: g may be large where p
      // or q is 0 by underflow.
      const V g = M::exp(beta * logq + (1 - beta) * logp), in_p = -beta * d, in_q = (1 - beta) * d;
      const V of_p = in_p * in_p < 1 ? -p * expm1(in_p) : p - g, of_q = in_q * in_q < 1 ? -q * expm1(in_q) : q - g;
      return {of_p / beta, of_q / (1 - beta)};
    } else {  // tvd
      const V half = M::fill(T(0.5)), sign = p > q ? half : (p < q ? -half : zero);
      return {sign * p, -sign * q};
    }
  }

  struct Entry {
    V value, dz, du;
  };
  template <Compare k>
  LOSSK_BOTH static Entry entry(T beta, V z, V u, V c) {
    // Two logits of -inf, which rule a column out in both heads, do not differ.
    const V zero = M::fill(0), one = M::fill(1), d = z == u ? zero : z - u;
    if constexpr (k == Compare::logit_mse) {
      return {d * d, 2 * d, -2 * d};
    } else if constexpr (k == Compare::bernoulli_kl) {
      // Near each other a difference of small numbers, from the side on which z lies.
      const V of_u = sigmoid(u), rest = sigmoid(-u), side = d > 0 ? rest : of_u, less = d > 0 ? -d : d;
      const V linear = of_u == 0 ? zero : of_u * d;  // not 0 * inf
      const V near = log1p(side * expm1(less)) - side * less, far = softplus(z) - softplus(u) - linear;
      return {less > -1 ? near : far, sigmoid(z) - of_u, rest * -linear};
    } else if constexpr (k == Compare::log_cosh) {
      const V half = d * T(0.5), size = half < 0 ? -half : half, t = M::tanh(half * T(0.5)), square = t * t;
      const V far = size + log1p(M::exp(-2 * size)) - T(0.6931471805599453);
      const V near = log1p(2 * square / (size < 4 ? 1 - square : one)), slope = M::tanh(half) * T(0.5);
      return {size < 4 ? near : far, slope, -slope};
    } else if constexpr (k == Compare::softplus) {
      const V slope = sigmoid(d);
      return {softplus(d), slope, -slope};
    } else if constexpr (k == Compare::hinge) {
      const V x = d + beta, slope = x > 0 ? one : zero;
      return {x > 0 ? x : zero, slope, -slope};
    } else if constexpr (k == Compare::above) {
      return {d > 0 ? one : zero, zero, zero};
    } else if constexpr (k == Compare::psl_tanh) {
      const V power = M::exp((T(0.6931471805599453) - softplus(-2 * d) - c) / beta);
      const V slope = power * 2 * sigmoid(-2 * d) / beta;  // 1 - tanh d, without its cancellation
      return {power, slope, -slope};
    } else {  // psl_relu
      const V x = 1 + d, base = x > 0 ? x : one;
      const V power = x > 0 ? M::exp((M::log(base) - c) / beta) : zero, slope = power / (base * beta);
      return {power, slope, -slope};
    }
  }

  // log(p / m) and log(q / m), m = w q + (1 - w) p, of d = log(p / q): the larger of the two first, nothing overflows.
  LOSSK_BOTH static Two<V> over_mixture(V d, T w) {
    const V less = expm1(d < 0 ? d : -d), p_first = -log1p(w * less), q_first = -log1p((1 - w) * less);
    return {d < 0 ? q_first + d : p_first, d < 0 ? q_first : p_first - d};
  }

  LOSSK_BOTH static V sigmoid(V x) { return 1 / (1 + M::exp(-x)); }
  LOSSK_BOTH static V softplus(V x) {
    const V size = x < 0 ? -x : x;
    return (x > 0 ? x : M::fill(0)) + log1p(M::exp(-size));
  }
  // Of x > -1: what rounding 1 + x took off comes back to first order.
  LOSSK_BOTH static V log1p(V x) {
    const V y = 1 + x;
    return M::log(y) + (x - (y - 1)) / y;
  }
  LOSSK_BOTH static V expm1(V x) {
    const V y = M::exp(x), rest = y - 1;
    const auto near = x * x < T(0.25);
    // Kahan: the errors of y in the two factors cancel.
    const V log_y = near ? M::log(y) : M::fill(1);
    return near ? (y == 1 ? x : rest * x / (log_y == 0 ? M::fill(1) : log_y)) : rest;
  }
};

// |d / dz|, or |d / du|, is at most this for a row whose sums are a and b, or whose numbers u and c they are: what
// float16 is scaled by. Of mean where |u| <= 1, of psl where the largest power is 1 and beta at most 1.
LOSSK_BOTH float bound(Compare k, float beta, float a, float b, bool by_u) {
  const float divergence = a + b, own = by_u ? b : a, w = by_u ? beta : 1 - beta;
  switch (k) {
    case Compare::forward_kl: return by_u ? 2 * divergence + 2 : 1;
    case Compare::reverse_kl: return by_u ? 1 : 2 * divergence + 2;
    case Compare::mean: return 2;
    case Compare::jsd: return w * (1 - std::log(w)) + std::fabs(own);
    case Compare::skew_kl: return (by_u ? 3 - std::log(beta) : 1) + std::fabs(own);
    case Compare::alpha: return 2 / (1 - w) + std::fabs(own);
    case Compare::tvd: return 1 + std::fabs(own);
    case Compare::logit_mse: return 2 * std::sqrt(a);
    case Compare::bernoulli_kl: return by_u ? 1 + a : 1;
    case Compare::psl_tanh: return 2 / beta;
    case Compare::psl_relu: return std::exp(-b) / beta;
    default: return 1;
  }
}

}  // namespace lossk
