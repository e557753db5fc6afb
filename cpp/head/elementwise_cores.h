// One struct per distance: what an element adds to a pair's sums, the distance of the sums, and its slope.
//
// Every distance is symmetric, so the slope by w_v is that by x_i with their places changed: `slope(own, other, a, e)`
// is dL/dd dd/d own of an element, a and e what `coefs` has made of dL/dd.
#pragma once
#include <bit>
#include <type_traits>

#include "common/simd.h"
#include "head/elementwise.h"

#if defined(__AVX512F__)
#define LOSSK_VECTOR(instruction) _mm512_##instruction
#elif defined(__AVX2__)
#define LOSSK_VECTOR(instruction) _mm256_##instruction
#elif defined(__SSE2__)
#define LOSSK_VECTOR(instruction) _mm_##instruction
#endif
#ifdef LOSSK_VECTOR
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // in GCC 12's own header
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

namespace lossk {

template <class S>
struct Core {
  using V = typename S::V;
  using T = std::remove_cvref_t<decltype(V{}[0])>;
  using Bits = std::conditional_t<sizeof(T) == 8, int64_t, int32_t>;
  typedef Bits I __attribute__((vector_size(sizeof(V))));

  static constexpr int sums = 1;               // of a pair
  static constexpr bool light = true;          // a few instructions an element: whole tiles of rows at once
  static constexpr bool from_largest = false;  // sums are relative to the largest |delta|, found in a pass before
  static constexpr bool two = false;           // slope takes e
  static constexpr bool scatters = false;      // one element of a pair has a slope: e, its place and sign

  static constexpr Bits kSign = Bits(1) << (8 * sizeof(T) - 1);
  static I bits(V x) { return std::bit_cast<I>(x); }
  static V abs(V x) { return std::bit_cast<V>(bits(x) & ~kSign); }
  // Of numbers >= 0 as integers, which order them alike and nan above all: no nan is lost.
  static V larger(V a, V b) { return std::bit_cast<V>(bits(a) > bits(b) ? bits(a) : bits(b)); }
  // Within [-most, most], most > 0. By name: the compiler makes four instructions of two `a > b ? a : b`, for nan's
  // sake.
  static V clamp(V x, T most) {
    const V high = S::fill(most), low = -high;
#ifdef LOSSK_VECTOR
    if constexpr (sizeof(T) == 8) return LOSSK_VECTOR(min_pd)(LOSSK_VECTOR(max_pd)(x, low), high);
    else return LOSSK_VECTOR(min_ps)(LOSSK_VECTOR(max_ps)(x, low), high);
#else
    return S::min(S::max(x, low), high);
#endif
  }
  // sgn(delta) / kLarge in two instructions, where two compares cost half as much again. The sign of a difference below
  // 2^-80 (2^-600) counts less than whole.
  static constexpr T kLarge = sizeof(T) == 8 ? T(0x1p600) : T(0x1p80);
  static V small_sign(V delta) { return clamp(delta, 1 / kLarge); }
  // size sgn(own - other), for a size that may be anything where they are equal.
  static V toward(V own, V other, V size) { return (own > other ? size : V{}) - (own < other ? size : V{}); }

  static void join(V* total, const V* part) { total[0] += part[0]; }
  static V second(const V*) { return V{}; }
  static void coefs(V&, V&, V) {}
};

template <class S>
struct Manhattan : Core<S> {
  using B = Core<S>;
  using V = typename B::V;
  static void add(V* sum, V x, V w, V, int64_t) { sum[0] += B::abs(x - w); }
  static V distance(const V* sum, V) { return sum[0]; }
  static void coefs(V& a, V&, V) { a *= B::kLarge; }
  static V slope(V own, V other, V a, V) { return a * B::small_sign(own - other); }
};

template <class S>
struct Chebyshev : Core<S> {
  using B = Core<S>;
  using V = typename B::V;
  static constexpr bool scatters = true;
  static void add(V* sum, V x, V w, V, int64_t) { sum[0] = B::larger(sum[0], B::abs(x - w)); }
  static void join(V* total, const V* part) { total[0] = B::larger(total[0], part[0]); }
  static V distance(const V* sum, V) { return sum[0]; }
};

// The same with k + 1 of the first that is largest, delta's sign before it; 0 where all are 0.
template <class S>
struct Farthest : Chebyshev<S> {
  using B = Core<S>;
  using V = typename B::V;
  using T = typename B::T;
  static constexpr int sums = 2;
  static constexpr bool two = true;
  static void add(V* sum, V x, V w, V, int64_t k) {
    const V delta = x - w;
    const V part[] = {B::abs(delta), std::bit_cast<V>(B::bits(S::fill(T(k + 1))) | (B::bits(delta) & B::kSign))};
    join(sum, part);
  }
  static void join(V* total, const V* part) {
    const auto more = B::bits(part[0]) > B::bits(total[0]);
    total[1] = more ? part[1] : total[1];
    total[0] = B::larger(total[0], part[0]);
  }
  static V second(const V* sum) { return sum[1]; }
};

template <class S>
struct SmoothChebyshev : Core<S> {
  using B = Core<S>;
  using V = typename B::V;
  using T = typename B::T;
  static constexpr bool light = false, from_largest = true, two = true;
  T p;
  void add(V* sum, V x, V w, V largest, int64_t) const { sum[0] += S::exp(p * (B::abs(x - w) - largest)); }
  V distance(const V* sum, V largest) const { return largest + S::log(sum[0]) / p; }
  static void coefs(V&, V& e, V d) { e = d; }
  V slope(V own, V other, V a, V e) const { return B::toward(own, other, a * S::exp(p * (B::abs(own - other) - e))); }
};

// Any p: powers relative to the largest |delta|, so that none overflows and their sum does not vanish.
template <class S>
struct Minkowski : Core<S> {
  using B = Core<S>;
  using V = typename B::V;
  using T = typename B::T;
  static constexpr bool light = false, from_largest = true, two = true;
  T p;
  void add(V* sum, V x, V w, V largest, int64_t) const {
    const V share = B::abs(x - w) / largest;
    sum[0] += largest == 0 ? V{} : S::exp(p * S::log(share));
  }
  V distance(const V* sum, V largest) const {
    V root;  // once a pair, so in double: float's log and exp would leave ten times the rounding
    for (int64_t i = 0; i < S::width; ++i) root[i] = T(std::pow(double(sum[0][i]), 1 / double(p)));
    return largest == 0 ? largest : largest * root;
  }
  static void coefs(V&, V& e, V d) { e = 1 / d; }
  V slope(V own, V other, V a, V e) const {
    const V x = (p - 1) * S::log(B::abs(own - other) * e), most = S::fill(T(80));  // p < 1: tiny delta, no inf
    return B::toward(own, other, a * S::exp(x > most ? most : x));
  }
};

// p = halves / 2, without powers.
template <class S, int halves>
struct MinkowskiOf : Core<S> {
  using B = Core<S>;
  using V = typename B::V;
  static V root(V x) {
    for (int64_t i = 0; i < S::width; ++i) x[i] = std::sqrt(x[i]);
    return x;
  }
  static V power(V x) {
    return halves == 3 ? x * root(x) : halves == 4 ? x * x : halves == 6 ? x * x * x : x * x * (x * x);
  }
  static void add(V* sum, V x, V w, V, int64_t) { sum[0] += power(B::abs(x - w)); }
  static V distance(const V* sum, V) {
    if (halves == 4) return root(sum[0]);
    if (halves == 8) return root(root(sum[0]));
    const V first = S::exp(S::log(sum[0]) / 3), square = first * first;
    const V cube_root = first - (square * first - sum[0]) / (3 * square);  // Newton: takes off what log and exp rounded
    return sum[0] == 0 ? V{} : (halves == 6 ? cube_root : cube_root * cube_root);
  }
  // One division a power: d^(p-1) itself would vanish first.
  static void coefs(V& a, V&, V d) {
    V by = a / (halves == 3 ? root(d) : d);
    for (int i = 4; i < halves; i += 2) by /= d;
    a = d == 0 ? V{} : by;
  }
  static V slope(V own, V other, V a, V) {
    const V delta = own - other;
    if (halves == 4) return a * delta;
    if (halves == 6) return a * delta * B::abs(delta);
    if (halves == 8) return a * delta * (delta * delta);
    return a * std::bit_cast<V>(B::bits(root(B::abs(delta))) | (B::bits(delta) & B::kSign));
  }
};

template <class S, bool robust>
struct Canberra : Core<S> {
  using B = Core<S>;
  using V = typename B::V;
  using T = typename B::T;
  T p;
  void add(V* sum, V x, V w, V, int64_t) const {
    const V s = B::abs(x) + B::abs(w);
    sum[0] += B::abs(x - w) / (robust ? S::max(s, S::fill(p)) : s + p);
  }
  static V distance(const V* sum, V) { return sum[0]; }
  static void coefs(V& a, V&, V) { a *= B::kLarge; }
  // sgn(delta) / s - sgn(own) |delta| / s^2, the latter where s is not the floor.
  V slope(V own, V other, V a, V) const {
    const V s = B::abs(own) + B::abs(other), delta = own - other, r = 1 / (robust ? S::max(s, S::fill(p)) : s + p);
    const V change = B::toward(own, V{}, S::fill(1)) * delta * r;
    return a * r * B::small_sign(delta) * (1 - (robust ? (s < p ? V{} : change) : change));
  }
};

template <class S>
struct CanberraWeighted : Core<S> {
  using B = Core<S>;
  using V = typename B::V;
  using T = typename B::T;
  static constexpr int sums = 2;
  static constexpr bool light = false, two = true;
  T p;
  static V size(V x, V w) { return B::abs(x) + B::abs(w) + T(1e-4); }
  void add(V* sum, V x, V w, V, int64_t) const {
    const V s = size(x, w), weight = S::exp((p - 1) * S::log(s));
    sum[0] += B::abs(x - w) * weight, sum[1] += s * weight;
  }
  static void join(V* total, const V* part) { total[0] += part[0], total[1] += part[1]; }
  static V distance(const V* sum, V) { return sum[0] / sum[1]; }
  static V second(const V* sum) { return sum[1]; }
  static void coefs(V& a, V& e, V d) { a = a / e, e = d; }
  V slope(V own, V other, V a, V e) const {
    const V s = size(own, other), by = a * S::exp((p - 1) * S::log(s));
    return B::toward(own, other, by) + B::toward(own, V{}, by * ((p - 1) * B::abs(own - other) / s - e * p));
  }
};

// call(core) with the kind's; by_place: also which element is the largest.
template <class S, class T, class Call>
void with_core(const Metric<T>& m, bool by_place, const Call& call) {
  switch (m.kind) {
    case ElementDistance::chebyshev: return by_place ? call(Farthest<S>{}) : call(Chebyshev<S>{});
    case ElementDistance::smooth_chebyshev: return call(SmoothChebyshev<S>{{}, m.p});
    case ElementDistance::minkowski:
      if (m.p == 1) return call(Manhattan<S>{});
      if (m.p == 1.5) return call(MinkowskiOf<S, 3>{});
      if (m.p == 2) return call(MinkowskiOf<S, 4>{});
      if (m.p == 3) return call(MinkowskiOf<S, 6>{});
      if (m.p == 4) return call(MinkowskiOf<S, 8>{});
      return call(Minkowski<S>{{}, m.p});
    case ElementDistance::canberra: return call(Canberra<S, false>{{}, m.p});
    case ElementDistance::canberra_robust: return call(Canberra<S, true>{{}, m.p});
    case ElementDistance::canberra_weighted: return call(CanberraWeighted<S>{{}, m.p});
    default: return call(Manhattan<S>{});
  }
}

}  // namespace lossk
