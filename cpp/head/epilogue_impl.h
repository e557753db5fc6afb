// The epilogue as templates on a CPU (Isa), instantiated by epilogue_*.cpp with that CPU's compiler flags.
#pragma once
#include "common/simd.h"
#include "head/epilogue.h"

namespace lossk {

template <class Isa, class Number>
struct Arithmetic : Simd<Isa, Number> {
  using T = Number;
};

template <class Isa, class T>
struct EpilogueOf {
  using S = Simd<Isa, T>;
  using V = typename S::V;
  using H = HarmonicLogit<Arithmetic<Isa, T>>;
  static constexpr int64_t W = S::width;

  static void add(T a, const T* x, T* y) {
    for (int64_t v = 0; v < kSegment; v += W) S::store(y + v, S::load(y + v) + a * S::load(x + v));
  }

  // Softcapped logits, or a distance's, -inf beyond count so that they weigh nothing. Where slope is not null: dz by
  // what the curve is of, softcap's argument or -h; 0 beyond count.
  static void logits(const Segment<T>& seg, const T* raw, const RowTerms<T>& row, T* z, T* slope) {
    for (int64_t v = 0; v < seg.count; v += W) {
      V x = S::load(raw + v);
      if (seg.distance != Distance::none) {
        const V t = H::distance(seg.distance, row.scale, row.offset, S::load(seg.bias + v), x);
        S::store(z + v, H::logit(seg.distance, seg.power, t, row.eps));
        if (slope != nullptr) S::store(slope + v, H::slope(seg.distance, seg.power, row.scale, t, row.eps));
        continue;
      }
      if (seg.has_bias) x += S::load(seg.bias + v);
      x *= row.scale;
      if (seg.softcap > 0) {
        const V t = S::tanh(x / seg.softcap);
        x = seg.softcap * t;
        if (slope != nullptr) S::store(slope + v, 1 - t * t);
      }
      S::store(z + v, x);
    }
    for (int64_t v = seg.count; v < kSegment; ++v) z[v] = -INFINITY;
    for (int64_t v = seg.count; slope != nullptr && v < kSegment; ++v) slope[v] = 0;
  }
  static void logits(const Segment<T>& seg, const T* raw, const RowTerms<T>& row, T* z) {
    logits(seg, raw, row, z, nullptr);
  }

  // What the row's first pick has, in place of z and slope.
  static T first_pick(const Segment<T>& seg, T z) { return seg.distance == Distance::none ? z - seg.margin : 0; }

  static T first_slope(const Segment<T>& seg, const RowTerms<T>& row, T slope) {
    if (seg.distance == Distance::none) return slope;
    return H::slope(seg.distance, seg.power, row.scale, S::fill(row.target), row.eps)[0];
  }

  // The row's k-th pick as a column of this segment, or -1.
  static int64_t column(const Segment<T>& seg, const int64_t* index, int64_t k) {
    const int64_t v = index[k] - seg.first;
    return v >= 0 && v < seg.count ? v : -1;
  }

  static T highest(const T* z) {
    V best = S::load(z);
    for (int64_t v = W; v < kSegment; v += W) best = S::max(best, S::load(z + v));
    return S::highest(best);
  }

  template <bool full>
  static void stats(
      const Segment<T>& seg, const T* raw, const RowTerms<T>& row, const int64_t* index, T* logits_out,
      RowState<T>& state, T* weights) {
    alignas(64) T z[kSegment], slope[kSegment];
    const bool sloped = !full && weights != nullptr && seg.curved();
    logits(seg, raw, row, z, sloped ? slope : nullptr);
    for (int64_t k = 0; k < seg.picks; ++k) {
      const int64_t v = column(seg, index, k);
      if (v < 0) continue;
      if (k == 0) z[v] = first_pick(seg, z[v]);
      if (k == 0 && sloped) slope[v] = first_slope(seg, row, slope[v]);
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
    if (sloped) {
      V sum_slope{};
      for (int64_t v = 0; v < kSegment; v += W) {
        const V w = S::load(weights + v);
        sum_slope += w == 0 ? V{} : w * S::load(slope + v);
      }
      state.slope = S::sum(sum_slope);
    }
    if constexpr (full) {
      state.shifted = S::sum(shifted);
      state.square = S::sum(square);
      state.aux = S::sum(aux);
    }
  }

  template <bool full>
  static GradSums<T> grad(
      const Segment<T>& seg, const T* raw, const RowTerms<T>& row, const int64_t* index, const RowCoef<T>& c, T* g) {
    alignas(64) T z[kSegment], slope[kSegment];
    logits(seg, raw, row, z, seg.curved() ? slope : nullptr);
    if (const int64_t v = seg.picks > 0 ? column(seg, index, 0) : -1; v >= 0) {
      z[v] = first_pick(seg, z[v]);
      if (seg.curved()) slope[v] = first_slope(seg, row, slope[v]);
    }
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

    if (seg.curved()) times(slope, g);
    GradSums<T> sums;
    if (seg.row_sums) {
      V total{}, square{};
      for (int64_t v = 0; v < seg.count; v += W) {
        const V x = S::load(g + v);
        total += x;
        square += x * x;
      }
      sums = {0, S::sum(total), S::sum(square)};
      for (int64_t k = 0; c.pick != nullptr && k < seg.picks; ++k)
        if (const int64_t v = column(seg, index, k); v >= 0) sums.total += c.pick[k] * (seg.curved() ? slope[v] : 1);
    }
    if (seg.distance == Distance::none) {
      if (seg.row_sums) sums.scale = by_scale(seg, raw, g);
      times_scale(seg, row.scale, g);
      return sums;
    }
    if (seg.distance == Distance::cosine) times(seg.bias, g);
    // What a point's own term is summed from must be what the products take: the two cancel near a centre.
    if (seg.bf16) round_bf16(g);
    for (int64_t v = 0; seg.row_sums && v < seg.count; ++v) sums.scale += g[v];
    return sums;
  }

  static void times(const T* by, T* g) {
    for (int64_t v = 0; v < kSegment; v += W) S::store(g + v, S::load(g + v) * S::load(by + v));
  }

  static void round_bf16(T* g) {
    if constexpr (sizeof(T) == 4)
      for (int64_t v = 0; v < kSegment; v += W) S::store(g + v, S::bf16(S::load(g + v)));
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
