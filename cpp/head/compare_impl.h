// Comparisons as templates on a CPU (Isa), instantiated by compare_*.cpp with that CPU's compiler flags.
#pragma once
#include "head/compare_rows.h"
#include "head/epilogue_impl.h"

namespace lossk {

template <class Isa, class T>
struct CompareRowsOf {
  using M = Arithmetic<Isa, T>;
  using S = Simd<Isa, T>;
  using V = typename S::V;
  using C = Comparison<M>;
  using E = EpilogueOf<Isa, T>;
  static constexpr int64_t W = S::width;

  // Logits of both, -inf beyond the columns, and softcap's slopes where asked; u is the row's number where there is no
  // second head.
  static void logits(const Compared<T>& x, T* z, T* u, T* z_slope = nullptr, T* u_slope = nullptr) {
    E::logits(*x.z, x.z_raw, x.z_scale, z, z_slope);
    if (x.u) E::logits(*x.u, x.u_raw, x.u_scale, u, u_slope);
    else
      for (int64_t v = 0; v < kSegment; v += W) S::store(u + v, S::fill(x.number));
  }

  template <Compare k>
  static void sums_of(const Compared<T>& x, ComparedSums<T>& out) {
    alignas(64) T z[kSegment], u[kSegment];
    logits(x, z, u);
    out = ComparedSums<T>();
    out.max_z = E::highest(z), out.max_u = E::highest(u);
    // Trap: where all are -inf they are relative to 0, not to -inf, which would make nan.
    const T shift_z = out.max_z == -INFINITY ? 0 : out.max_z, shift_u = out.max_u == -INFINITY ? 0 : out.max_u;
    V sum_z{}, sum_u{}, a{};
    for (int64_t v = 0; v < kSegment; v += W) {
      const V dz = S::load(z + v) - shift_z, du = S::load(u + v) - shift_u, wz = S::exp(dz), wu = S::exp(du);
      sum_z += wz, sum_u += wu;
      if constexpr (k == Compare::forward_kl) a += wu == 0 ? V{} : wu * (du - dz);
      else if constexpr (k == Compare::reverse_kl) a += wz == 0 ? V{} : wz * (dz - du);
      else a += wz == 0 ? V{} : wz * S::load(u + v);
    }
    out.sum_z = S::sum(sum_z), out.sum_u = S::sum(sum_u), out.a = S::sum(a);
  }

  static void one_pass(Compare kind, T, const Compared<T>& x, ComparedSums<T>& out) {
    if (kind == Compare::forward_kl) sums_of<Compare::forward_kl>(x, out);
    else if (kind == Compare::reverse_kl) sums_of<Compare::reverse_kl>(x, out);
    else sums_of<Compare::mean>(x, out);
  }

  // What is left out of a comparison entry by entry: columns beyond the segment's, and the skipped one.
  static void keep_only_columns(const Compared<T>& x, T* values) {
    for (int64_t v = x.z->count; v < kSegment; ++v) values[v] = 0;
    if (const int64_t v = x.skip - x.z->first; x.skip >= 0 && v >= 0 && v < x.z->count) values[v] = 0;
  }

  static T sum_of(const T* values) {
    V sum{};
    for (int64_t v = 0; v < kSegment; v += W) sum += S::load(values + v);
    return S::sum(sum);
  }

  static void terms(
      Compare kind, T beta, const Compared<T>& x, const Normaliser<T>& of_z, const Normaliser<T>& of_u,
      ComparedSums<T>& out) {
    alignas(64) T z[kSegment], u[kSegment], a[kSegment], b[kSegment];
    logits(x, z, u);
    out = ComparedSums<T>();
    with_kind(kind, [&]<Compare k>() {
      for (int64_t v = 0; v < kSegment; v += W) {
        const V zv = S::load(z + v), uv = S::load(u + v);
        if constexpr (of_probabilities(k)) {
          const V logp = zv - of_z.lse - of_z.low, logq = uv - of_u.lse - of_u.low;
          const Two<V> t = C::template terms<k>(beta, logp, logq, S::exp(logp), S::exp(logq), uv);
          S::store(a + v, t.z), S::store(b + v, t.u);
        } else {
          const auto e = C::template entry<k>(beta, zv, uv, S::fill(x.shift));
          S::store(a + v, e.value), S::store(b + v, e.dz);
        }
      }
    });
    keep_only_columns(x, a), keep_only_columns(x, b);
    out.a = sum_of(a), out.b = sum_of(b);
  }

  static T grad(Compare kind, T beta, const Compared<T>& x, const CompareCoef<T>& c, bool by_u, T* g) {
    alignas(64) T z[kSegment], u[kSegment], curve[kSegment];
    logits(x, z, u, by_u ? nullptr : curve, by_u ? curve : nullptr);
    with_kind(kind, [&]<Compare k>() {
      for (int64_t v = 0; v < kSegment; v += W) {
        const V zv = S::load(z + v), uv = S::load(u + v);
        V slope;
        if constexpr (of_probabilities(k)) {
          const V logp = zv - c.z.lse - c.z.low, logq = uv - c.u.lse - c.u.low, p = S::exp(logp), q = S::exp(logq);
          if constexpr (k == Compare::mean) {
            slope = by_u ? p : (p == 0 ? V{} : p * (uv - c.a));
          } else {
            const Two<V> t = C::template terms<k>(beta, logp, logq, p, q, uv);
            slope = by_u ? t.u - q * c.b : t.z - p * c.a;
          }
        } else {
          const auto e = C::template entry<k>(beta, zv, uv, S::fill(x.shift));
          slope = by_u ? e.du : e.dz;
        }
        S::store(g + v, slope * c.upstream);
      }
    });
    keep_only_columns(x, g);
    const Segment<T>& own = by_u ? *x.u : *x.z;
    const T *raw = by_u ? x.u_raw : x.z_raw, scale = by_u ? x.u_scale : x.z_scale;
    if (own.softcap > 0) E::times(curve, g);
    const T by_scale = own.row_sums ? E::by_scale(own, raw, g) : 0;
    E::times_scale(own, scale, g);
    return by_scale;
  }
};

template <class Isa, class T>
constexpr CompareRows<T> make_compare_rows() {
  using R = CompareRowsOf<Isa, T>;
  return {R::one_pass, R::terms, R::grad};
}

}  // namespace lossk
