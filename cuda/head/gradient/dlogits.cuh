// The epilogue that turns logits into their gradient.
#pragma once
#include "head/gradient/params.h"
#include "head/logits.cuh"
#include "head/rows/narrow.cuh"

namespace lossk::head {

// `full`: every coefficient, not a0 and the picks' alone.
template <class T, int slots, bool options, bool full>
class DlogitsEpilogue {
 public:
  using Params = DlogitsParams;
  static constexpr bool kManyRegisters = full;
  LOSSK_DEVICE explicit DlogitsEpilogue(const Params& p) : p_(p), rows_(p.head) {}

  LOSSK_DEVICE void begin(int slot, int row) {
    rows_.begin(slot, row);
    if constexpr (options) by_scale_[slot] = 0;
  }

  template <int count, class Logits>
  LOSSK_DEVICE void add(int slot, int line, int column, const Logits& z) {
    if (line >= p_.head.rows) return;
    const int64_t place = int64_t{line} * p_.stride;
    const Terms t = terms(line);
    const uint64_t picked = rows_.template picked<count>(slot, t.row, column);
#pragma unroll
    for (int i = 0; i < count; i += 2) {
      const int c = column + i / 2 * 8;
      if (c >= p_.stride) continue;
      const float low = dlogit(slot, t, c, z(i), picked >> i & 1);
      store(place + c, low, dlogit(slot, t, c + 1, z(i + 1), picked >> (i + 1) & 1));
    }
  }

  LOSSK_DEVICE void end(int slot, int row, int part) {
    if constexpr (options) {
      if (!p_.row_sums) return;
      float sum = by_scale_[slot];
#pragma unroll
      for (int lanes = 1; lanes < 4; lanes *= 2) sum += shuffle_xor(sum, lanes);
      if (row < p_.head.rows && lane_index() % 4 == 0) p_.row_sums[int64_t{part} * p_.head.rows + row] = sum;
    }
  }

 private:
  static constexpr int kCoefs = full ? 6 : 1;

  struct Terms {  // what a row's dlogits are made with
    Row row;
    float unit, lse, lse_low, lse_excl, lse_excl_low, a[kCoefs];
  };
  LOSSK_DEVICE Terms terms(int line) const {
    Terms t{rows_.row(line), 1, 0, 0, -INFINITY, 0, {}};
    if (!t.row.there) return t;
    const Coefs& c = p_.coefs;
    const int64_t id = t.row.id;
    if constexpr (std::is_same_v<T, Fp16>) t.unit = p_.unit[line];
    t.lse = c.lse[id], t.lse_low = c.lse[c.n + id];
    if (full && c.lse_excl) t.lse_excl = c.lse_excl[id], t.lse_excl_low = c.lse_excl[c.n + id];
    for (int k = 0; k < kCoefs; ++k) t.a[k] = t.unit * c.row[int64_t{k} * c.n + id];
    return t;
  }

  LOSSK_DEVICE float dlogit(int slot, const Terms& t, int column, float raw, bool picked) {
    if (!t.row.there || column >= p_.head.columns) return 0;
    const float unscaled = rows_.unscaled(column, raw), z = rows_.logit(t.row, unscaled);
    float margin = 0, minus = 0;
    if (picked)
      rows_.for_picks(t.row, column, [&](int64_t place, bool first) {
        if (options && first) margin = p_.head.margin;
        if (p_.coefs.pick) minus += t.unit * p_.coefs.pick[place];
      });
    // z - lse first: the difference of two large numbers is exact, of their multiples it is not.
    const float logp = (options ? z - margin : z) - t.lse - t.lse_low;
    const float p = full ? expf(logp) : exp2_approx(logp * kLog2E);  // differences of statistics feel the last bits
    const float* a = t.a;
    float g = a[0] * p;
    if constexpr (full) {
      const float aux = p_.head.aux ? p_.head.aux[p_.head.first + column] : 1;
      g = p * (a[0] + (p == 0 ? 0 : a[1] * logp) + a[2] * p + a[3] * aux) + a[5] * aux;
      // exp(z - lse_excl) itself: written as a multiple of p it would cancel against 1 - p at a peaked target.
      if (!picked && a[4] != 0 && t.lse_excl != -INFINITY) g += a[4] * expf(z - t.lse_excl - t.lse_excl_low);
    }
    g -= minus;
    if constexpr (options) {
      g *= rows_.slope(z);
      if (p_.row_sums && g != 0) by_scale_[slot] += g * unscaled;
      g *= t.row.scale;
    }
    return g;
  }

  LOSSK_DEVICE void store(int64_t place, float low, float high) const {
    auto* out = static_cast<uint32_t*>(p_.out);
    if constexpr (Planes<T>::planes == 1) {
      out[place / 2] = pack<T>(low, high);
    } else {
      uint16_t lows[3], highs[3];
      split(low, lows);
      split(high, highs);
      const int64_t plane = int64_t{p_.head.rows} * p_.stride;
#pragma unroll
      for (int i = 0; i < 3; ++i) out[(i * plane + place) / 2] = lows[i] | uint32_t{highs[i]} << 16;
    }
  }

  const Params& p_;
  LogitRows<options, slots> rows_;
  float by_scale_[options ? slots : 1];
};
template <class T, int slots>
using PlainDlogits = DlogitsEpilogue<T, slots, false, false>;
template <class T, int slots>
using AnyDlogits = DlogitsEpilogue<T, slots, true, false>;
template <class T, int slots>
using FullDlogits = DlogitsEpilogue<T, slots, true, true>;

}  // namespace lossk::head
