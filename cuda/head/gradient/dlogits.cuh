// The epilogue that turns logits into their gradient.
#pragma once
#include "head/gradient/params.h"
#include "head/logits.cuh"
#include "head/rows/narrow.cuh"

namespace lossk::head {

// Of a logit without its picks and aX: a = a0 .. aX b where `full`, else a0 alone.
template <bool full, bool dense>
LOSSK_DEVICE float weighted(const float* a, float p, float logp, float aux) {
  if constexpr (!full) return a[0] * p;
  const float g = p * (a[0] + (p == 0 ? 0 : a[1] * logp) + a[2] * p + a[3] * aux);
  return dense ? g + a[5] * aux : g;
}
// Where `full`, differences of statistics feel the last bits.
template <bool full>
LOSSK_DEVICE float probability(float logp) {
  return full ? expf(logp) : exp2_approx(logp * kLog2E);
}

// `full`: every coefficient, not a0 and the picks' alone. `live`: of live columns (DlogitsParams). A distance has two
// coefficients, a and b.
template <class T, int slots, With with, bool full, bool live>
class DlogitsEpilogue {
  static constexpr bool options = with != With::nothing;

 public:
  using Params = DlogitsParams;
  static constexpr bool kManyRegisters = options || std::is_same_v<T, float>, kSumsColumns = false, kSliced = false;
  LOSSK_DEVICE explicit DlogitsEpilogue(const Params& p) : p_(p), rows_(p.head) {}

  LOSSK_DEVICE void begin(int slot, int row) {
    rows_.begin(slot, row);
    if constexpr (kKeepsTerms) terms_[slot] = terms(row);
    if constexpr (kSums > 0)
#pragma unroll
      for (int k = 0; k < kSums; ++k) sums_[slot][k] = 0;
  }

  template <int count, class Logits>
  LOSSK_DEVICE void add(int slot, int line, int column, const Logits& z) {
    const Terms t = kKeepsTerms ? terms_[slot] : terms(line);
    const TilePicks picks = rows_.template picks<count>(slot, t.row, column);
    if constexpr (options) {
      const uint64_t picked = rows_.picked(picks, t.row);
      const auto dlogit = [&](int i, float raw, const Pick* pick) {
        const int c = column + i / 2 * 8 + i % 2;
        return with == With::distance ? harmonic_dlogit(slot, t, c, raw, pick) : any_dlogit(slot, t, c, raw, pick);
      };
#pragma unroll
      for (int i = 0; i < count; ++i)
        if (!(picked >> i & 1)) z(i) = dlogit(i, z(i), nullptr);
      rows_.template change_picked<count>(picked, z, [&](int i, float raw) {
        const Pick pick = pick_of(t, picks, i);
        return dlogit(i, raw, &pick);
      });
    } else {
      if (t.row.there && t.columns - column >= 4 * count)
#pragma unroll
        for (int i = 0; i < count; ++i) z(i) = plain_dlogit(t, z(i));
      else
#pragma unroll
        for (int i = 0; i < count; ++i)
          z(i) = t.row.there && column + i / 2 * 8 + i % 2 < t.columns ? plain_dlogit(t, z(i)) : 0;
      if constexpr (live)
#pragma unroll
        for (int i = 0; i < count; ++i) sums_[slot][1] += z(i);
      rows_.for_own_picks(picks, t.row, [&](int own, int64_t place) {
        const float minus =
            p_.coefs.pick && column + own / 2 * 8 + own % 2 < t.columns ? t.unit * p_.coefs.pick[place] : 0;
#pragma unroll
        for (int i = 0; i < count; ++i) z(i) -= i == own ? minus : 0;
      });
      if constexpr (live)
#pragma unroll
        for (int i = 0; i < count; ++i) sums_[slot][2] += z(i) * z(i);
    }
    store<count>(line, column, z);
  }

  LOSSK_DEVICE void end(int slot, int row, int part) {
    if constexpr (kSums > 0) {
      if (!p_.row_sums) return;
#pragma unroll
      for (int k = 0; k < kSums; ++k) {
        float sum = sums_[slot][k];
#pragma unroll
        for (int lanes = 1; lanes < 4; lanes *= 2) sum += shuffle_xor(sum, lanes);
        if (row < p_.head.rows && lane_index() % 4 == 0)
          p_.row_sums[(int64_t{k} * p_.live_parts + part) * p_.head.rows + row] = sum;
      }
    }
  }

 private:
  static constexpr int kCoefs = full ? 6 : with == With::distance ? 2 : 1, kSums = live ? 3 : options ? 1 : 0;

  struct Terms {  // what a row's dlogits are made with
    Row row;
    int columns;
    float unit, lse, lse_low, lse_excl, lse_excl_low, a[kCoefs];
  };
  LOSSK_DEVICE Terms terms(int line) const {
    Terms t{rows_.row(line), rows_.columns(), 1, 0, 0, -INFINITY, 0, {}};
    if (!t.row.there) return t;
    const Coefs& c = p_.coefs;
    const int64_t id = t.row.id;
    if constexpr (std::is_same_v<T, Fp16>) t.unit = p_.unit[line];
    t.lse = c.lse[id], t.lse_low = c.lse[c.n + id];
    if (full && c.lse_excl) t.lse_excl = c.lse_excl[id], t.lse_excl_low = c.lse_excl[c.n + id];
    for (int k = 0; k < kCoefs; ++k) t.a[k] = t.unit * c.row[int64_t{k} * c.n + id];
    return t;
  }

  // Of a logit and its row's a0 alone. z - lse first: the difference of two large numbers is exact, of their multiples
  // it is not.
  LOSSK_DEVICE static float plain_dlogit(const Terms& t, float z) {
    return t.a[0] * exp2_approx((z - t.lse - t.lse_low) * kLog2E);
  }

  struct Pick {           // of a logit
    bool target = false;  // the row's first entry is among them
    float minus = 0;
  };
  LOSSK_DEVICE Pick pick_of(const Terms& t, const TilePicks& picks, int i) const {
    Pick pick;
    rows_.for_picks(picks, t.row, i, [&](int64_t place, bool first) {
      pick.target |= first;
      if (p_.coefs.pick) pick.minus += t.unit * p_.coefs.pick[place];
    });
    return pick;
  }

  // `pick`: null where the column is not picked.
  LOSSK_DEVICE float any_dlogit(int slot, const Terms& t, int column, float raw, const Pick* pick) {
    if (!t.row.there || column >= t.columns) return 0;
    const float unscaled = rows_.unscaled(column, raw), z = rows_.logit(t.row, unscaled);
    const float margin = pick && pick->target ? p_.head.margin : 0;
    const float logp = z - margin - t.lse - t.lse_low;
    const float* a = t.a;
    const float aux = full && p_.head.aux ? p_.head.aux[p_.head.first + column] : 1;
    float g = weighted<full, !live>(a, probability<full>(logp), logp, aux);
    // exp(z - lse_excl) itself: written as a multiple of p it would cancel against 1 - p at a peaked target.
    if constexpr (full)
      if (!pick && a[4] != 0 && t.lse_excl != -INFINITY) g += a[4] * expf(z - t.lse_excl - t.lse_excl_low);
    const float slope = rows_.slope(z);
    if constexpr (live) sums_[slot][1] += g * slope;
    g = (g - (pick ? pick->minus : 0)) * slope;
    if constexpr (live) sums_[slot][2] += g * g;
    if (p_.row_sums && g != 0) sums_[slot][0] += g * unscaled;
    return g * t.row.scale;
  }

  // By -h.
  LOSSK_DEVICE float harmonic_dlogit(int slot, const Terms& t, int column, float raw, const Pick* pick) {
    if (!t.row.there || column >= t.columns) return 0;
    const bool is_target = pick && pick->target;
    const float d = is_target ? t.row.target : rows_.distance(t.row, column, raw);
    const float z = is_target ? 0 : rows_.harmonic(t.row, d);
    float g = t.a[0] * exp2_approx((z - t.lse - t.lse_low) * kLog2E);
    if constexpr (!live) g += t.a[1];
    const float slope = rows_.harmonic_slope(t.row, d);
    if constexpr (live) sums_[slot][1] += g * slope;
    g = (g - (pick ? pick->minus : 0)) * slope;
    if constexpr (live) sums_[slot][2] += g * g;
    if (p_.head.distance == Distance::cosine) g *= p_.head.bias[p_.head.first + column];
    // Of what the products take: the two cancel near a centre.
    if (p_.row_sums) sums_[slot][0] += rounded(g);
    return g;
  }
  LOSSK_DEVICE static float rounded(float g) {
    if constexpr (std::is_same_v<T, float>) return g;
    else return widen<T>(pack<T>(g, 0));
  }

  // By all lanes of the warp: rows and columns that are not there take part in the exchange.
  template <int count, class Dlogits>
  LOSSK_DEVICE void store(int line, int column, const Dlogits& g) const {
    constexpr int kPlanes = Planes<T>::planes;
    const int64_t place = int64_t{line} * p_.stride, plane = int64_t{p_.head.rows} * p_.stride;
    const int lane = lane_index() % 4;
#pragma unroll
    for (int group = 0; group < count / 2; group += 4) {
      Eight x[kPlanes];
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        uint32_t pairs[kPlanes];
        pack_planes(g(2 * (group + k)), g(2 * (group + k) + 1), pairs);
#pragma unroll
        for (int p = 0; p < kPlanes; ++p) x[p].pairs[k] = pairs[p];
      }
      const int first = column - 2 * lane + 8 * (group + lane);
      const bool there = line < p_.head.rows && first < p_.stride;
#pragma unroll
      for (int p = 0; p < kPlanes; ++p) {
        gather_group(x[p]);
        if (there) *reinterpret_cast<Eight*>(static_cast<uint16_t*>(p_.out) + p * plane + place + first) = x[p];
      }
    }
  }

  LOSSK_DEVICE static void pack_planes(float low, float high, uint32_t (&pairs)[Planes<T>::planes]) {
    if constexpr (Planes<T>::planes == 1) {
      pairs[0] = pack<T>(low, high);
    } else {
      uint16_t lows[3], highs[3];
      split(low, lows);
      split(high, highs);
#pragma unroll
      for (int i = 0; i < 3; ++i) pairs[i] = lows[i] | uint32_t{highs[i]} << 16;
    }
  }

  // Two rows a thread, as product_wgmma has them, leave registers for what a plain head's dlogits are made with; beside
  // the sums of live columns they spilt.
  static constexpr bool kKeepsTerms = slots <= 2 && !options && !live;

  const Params& p_;
  LogitRows<with> rows_;
  Terms terms_[kKeepsTerms ? slots : 1];
  float sums_[slots][kSums ? kSums : 1];
};
template <class T, int slots>
using PlainDlogits = DlogitsEpilogue<T, slots, With::nothing, false, false>;
template <class T, int slots>
using AnyDlogits = DlogitsEpilogue<T, slots, With::options, false, false>;
template <class T, int slots>
using FullDlogits = DlogitsEpilogue<T, slots, With::options, true, false>;
template <class T, int slots>
using PlainLiveDlogits = DlogitsEpilogue<T, slots, With::nothing, false, true>;
template <class T, int slots>
using AnyLiveDlogits = DlogitsEpilogue<T, slots, With::options, false, true>;
template <class T, int slots>
using FullLiveDlogits = DlogitsEpilogue<T, slots, With::options, true, true>;
template <class T, int slots>
using DistanceDlogits = DlogitsEpilogue<T, slots, With::distance, false, false>;
template <class T, int slots>
using DistanceLiveDlogits = DlogitsEpilogue<T, slots, With::distance, false, true>;

}  // namespace lossk::head
