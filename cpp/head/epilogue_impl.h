// The epilogue as templates on a CPU (Isa), instantiated by epilogue_*.cpp with that CPU's compiler flags.
#pragma once
#include "common/simd.h"
#include "head/epilogue.h"

namespace lossk {

template <class Isa, class T>
struct EpilogueOf {
  using S = Simd<Isa, T>;
  using V = typename S::V;
  static constexpr int64_t W = S::width;

  static void add(T a, const T* x, T* y) {
    for (int64_t v = 0; v < kSegment; v += W) S::store(y + v, S::load(y + v) + a * S::load(x + v));
  }

  // Softcapped logits, -inf beyond count so that they weigh nothing.
  static void logits(const Segment<T>& seg, const T* raw, T scale, T* z) {
    for (int64_t v = 0; v < seg.count; v += W) {
      V x = S::load(raw + v);
      if (seg.has_bias) x += S::load(seg.bias + v);
      x *= scale;
      if (seg.softcap > 0) x = seg.softcap * S::tanh(x / seg.softcap);
      S::store(z + v, x);
    }
    for (int64_t v = seg.count; v < kSegment; ++v) z[v] = -INFINITY;
  }

  // The row's k-th pick as a column of this segment, or -1.
  static int64_t column(const Segment<T>& seg, const int64_t* index, int64_t k) {
    const int64_t v = index[k] - seg.first;
    return v >= 0 && v < seg.count ? v : -1;
  }

  static T slope_at(const Segment<T>& seg, T z) { return 1 - (z / seg.softcap) * (z / seg.softcap); }

  static T highest(const T* z) {
    V best = S::load(z);
    for (int64_t v = W; v < kSegment; v += W) best = S::max(best, S::load(z + v));
    return S::highest(best);
  }

  template <bool full>
  static void stats(
      const Segment<T>& seg, const T* raw, T scale, const int64_t* index, T* logits_out, RowState<T>& state,
      T* weights) {
    alignas(64) T z[kSegment];
    logits(seg, raw, scale, z);
    for (int64_t k = 0; k < seg.picks; ++k) {
      const int64_t v = column(seg, index, k);
      if (v < 0) continue;
      if (k == 0) z[v] -= seg.margin;
      logits_out[k] = z[v];
    }
    state = RowState<T>();
    if constexpr (full) {
      V dot{}, least = S::fill(INFINITY);
      int64_t v = 0;
      for (; v + W <= seg.count; v += W) {
        dot += S::load(z + v) * S::load(seg.aux + v);
        least = S::min(least, S::load(z + v));
      }
      state.aux_dot = S::sum(dot);
      state.min = S::lowest(least);
      for (; v < seg.count; ++v) {
        state.aux_dot += z[v] * seg.aux[v];
        state.min = z[v] < state.min ? z[v] : state.min;
      }
      state.top = highest(z);
      for (v = 0; v < seg.count && z[v] != state.top;) ++v;
      state.argmax = seg.first + v;
      for (int64_t k = 0; k < seg.picks; ++k)
        if (const int64_t out = column(seg, index, k); out >= 0) z[out] = -INFINITY;
    }
    const T m = highest(z);
    state.max = m;
    if (m == -INFINITY) return;
    V sum{}, shifted{}, square{}, aux{};
    for (int64_t v = 0; v < kSegment; v += W) {
      const V d = S::load(z + v) - m, w = S::exp(d);
      sum += w;
      if (weights != nullptr) S::store(weights + v, w);
      if constexpr (full) {
        shifted += w == 0 ? V{} : w * d;  // -inf logits: 0, not 0 * -inf
        square += w * w;
        aux += w * S::load(seg.aux + v);
      }
    }
    state.sum = S::sum(sum);
    if (!full && weights != nullptr && seg.softcap > 0) {
      V slope{};
      for (int64_t v = 0; v < kSegment; v += W) {
        const V w = S::load(weights + v), t = S::load(z + v) / seg.softcap;
        slope += w == 0 ? V{} : w * (1 - t * t);
      }
      state.slope = S::sum(slope);
      // The margin comes off after the softcap: its derivative is taken where the target was before.
      if (const int64_t v = seg.margin != 0 && seg.picks > 0 ? column(seg, index, 0) : -1; v >= 0)
        state.slope += weights[v] * (slope_at(seg, z[v] + seg.margin) - slope_at(seg, z[v]));
    }
    if constexpr (full) {
      state.shifted = S::sum(shifted);
      state.square = S::sum(square);
      state.aux = S::sum(aux);
    }
  }

  template <bool full>
  static GradSums<T> grad(
      const Segment<T>& seg, const T* raw, T scale, const int64_t* index, const RowCoef<T>& c, T* g) {
    alignas(64) T z[kSegment];
    logits(seg, raw, scale, z);
    const int64_t target = seg.picks > 0 ? column(seg, index, 0) : -1;
    if (target >= 0) z[target] -= seg.margin;
    for (int64_t v = 0; v < kSegment; v += W) {
      const V logp = S::load(z + v) - c.lse - c.lse_low, p = S::exp(logp);
      if constexpr (full) {
        const V aux = S::load(seg.aux + v), finite = p == 0 ? V{} : logp;
        S::store(g + v, p * (c.a0 + c.a1 * finite + c.a2 * p + c.a3 * aux) + c.b * aux);
      } else {
        S::store(g + v, p * c.a0);
      }
    }
    if (full && c.aX != 0 && c.lse_excl != -INFINITY) {
      // exp(z - lse_excl) itself: written as a multiple of p it would cancel against 1 - p at a peaked target.
      alignas(64) T rest[kSegment];
      std::memcpy(rest, z, sizeof rest);
      for (int64_t k = 0; k < seg.picks; ++k)
        if (const int64_t out = column(seg, index, k); out >= 0) rest[out] = -INFINITY;
      for (int64_t v = 0; v < kSegment; v += W)
        S::store(g + v, S::load(g + v) + c.aX * S::exp(S::load(rest + v) - c.lse_excl - c.lse_excl_low));
    }
    for (int64_t k = 0; c.pick != nullptr && k < seg.picks; ++k)
      if (const int64_t v = column(seg, index, k); v >= 0) g[v] -= c.pick[k];
    for (int64_t v = seg.count; v < kSegment; ++v) g[v] = 0;

    if (seg.softcap > 0) {
      if (target >= 0) z[target] += seg.margin;
      through_softcap(seg, z, g);
    }
    GradSums<T> sums;
    if (seg.row_sums) {
      V total{}, square{};
      for (int64_t v = 0; v < seg.count; v += W) {
        const V x = S::load(g + v);
        total += x;
        square += x * x;
      }
      sums = {by_scale(seg, raw, g), S::sum(total), S::sum(square)};
      for (int64_t k = 0; c.pick != nullptr && k < seg.picks; ++k)
        if (const int64_t v = column(seg, index, k); v >= 0)
          sums.total += c.pick[k] * (seg.softcap > 0 ? slope_at(seg, z[v]) : 1);
    }
    times_scale(seg, scale, g);
    return sums;
  }

  // g by the capped z, -> by what was capped.
  static void through_softcap(const Segment<T>& seg, T* z, T* g) {
    for (int64_t v = seg.count; v < kSegment; ++v) z[v] = 0;
    for (int64_t v = 0; v < kSegment; v += W) {
      const V t = S::load(z + v) / seg.softcap;
      S::store(g + v, S::load(g + v) * (1 - t * t));
    }
  }

  // d loss / d scale, of g before the scale.
  static T by_scale(const Segment<T>& seg, const T* raw, const T* g) {
    V sum{};
    for (int64_t v = 0; v < seg.count; v += W) {
      const V x = S::load(g + v), unscaled = S::load(raw + v) + S::load(seg.bias + v);
      sum += x == 0 ? V{} : x * unscaled;
    }
    return S::sum(sum);
  }

  static void times_scale(const Segment<T>& seg, T scale, T* g) {
    for (int64_t v = 0; scale != 1 && v < seg.count; v += W) S::store(g + v, S::load(g + v) * scale);
  }
};

template <class Isa, class T>
constexpr Epilogue<T> make_epilogue() {
  using E = EpilogueOf<Isa, T>;
  return {E::template stats<false>,
          E::template stats<true>,
          E::template grad<false>,
          E::template grad<true>,
          E::add,
          E::logits};
}

}  // namespace lossk
