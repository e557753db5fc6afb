// The epilogues: logits in registers become a running maximum and sums for each row.
#pragma once
#include "head/logits.cuh"
#include "head/stats/params.h"

namespace lossk::head {

constexpr float kNone = -INFINITY;  // the logit of a column that is not there

struct RowLse {
  float max = kNone;
  float sum = 0;

  // The logits z(0), ..., z(count - 1). z - max before the multiplication: the difference of two large numbers is
  // exact, of their multiples it is not. Trap: where all of them are -inf, or one is inf, it would be inf - inf.
  template <int count, class Logits>
  LOSSK_DEVICE void add(const Logits& z) {
    float top = max;
#pragma unroll
    for (int i = 0; i < count; ++i) top = maximum(top, z(i));
    const float shift = fabsf(top) == INFINITY ? 0 : top;
    float part[4] = {};  // short chains of additions: fewer roundings, and none waits for the one before
#pragma unroll
    for (int i = 0; i < count; ++i) part[i % 4] += exp2_approx((z(i) - shift) * kLog2E);
    sum = sum * exp2_approx((max - shift) * kLog2E) + ((part[0] + part[1]) + (part[2] + part[3]));
    max = top;
  }

  LOSSK_DEVICE void merge(const Partial& other) {
    const float top = maximum(max, other.max);
    const float shift = fabsf(top) == INFINITY ? 0 : top;
    sum = sum * exp2_approx((max - shift) * kLog2E) + other.sum * exp2_approx((other.max - shift) * kLog2E);
    max = top;
  }

  // Over the four lanes that share a row in an accumulator tile.
  LOSSK_DEVICE void merge_quad() {
#pragma unroll
    for (int lanes = 1; lanes < 4; lanes *= 2) merge({shuffle_xor(max, lanes), shuffle_xor(sum, lanes)});
  }

  LOSSK_DEVICE Partial partial() const { return {max, sum}; }
};

// lse, and the logits of the picks. Of a product input linear_weight^T, as product_mma_sync and product_wgmma call it.
template <class T, int slots, bool options>
class LseEpilogue {
 public:
  using Params = StatsParams;
  static constexpr bool kManyRegisters = false;
  LOSSK_DEVICE explicit LseEpilogue(const Params& p) : p_(p), rows_(p.head) {}

  LOSSK_DEVICE void begin(int slot, int row) {
    rows_.begin(slot, row);
    found_[slot] = {};
  }

  template <int count, class Logits>
  LOSSK_DEVICE void add(int slot, int line, int column, const Logits& z) {
    const Row row = rows_.row(line);
    const uint64_t picked = rows_.template picked<count>(slot, row, column);
#pragma unroll
    for (int i = 0; i < count; ++i) {
      const int c = column + i / 2 * 8 + i % 2;
      const bool there = c < rows_.columns();
      if constexpr (options)
        if (there) z(i) = rows_.logit(row, rows_.unscaled(c, z(i)));
      if (picked >> i & 1 && there) {
        rows_.for_picks(row, c, [&](int64_t, bool first) { z(i) -= options && first ? p_.head.margin : 0; });
        rows_.for_picks(row, c, [&](int64_t place, bool) { p_.picked[place] = z(i); });
      }
      if (!there) z(i) = kNone;
    }
    found_[slot].template add<count>(z);
  }

  LOSSK_DEVICE void end(int slot, int row, int part) {
    found_[slot].merge_quad();
    if (rows_.row(row).there && lane_index() % 4 == 0)
      static_cast<Partial*>(p_.partial)[int64_t{p_.first_part + part} * p_.head.rows + row] = found_[slot].partial();
  }

 private:
  const Params& p_;
  LogitRows<options, slots> rows_;
  RowLse found_[slots];
};
template <class T, int slots>
using PlainLse = LseEpilogue<T, slots, false>;
template <class T, int slots>
using AnyLse = LseEpilogue<T, slots, true>;

// Every statistic. The sums leave the picks out: merge_rows adds them, and has lse_excl without cancellation.
template <class T, int slots>
class StatsEpilogue {
 public:
  using Params = StatsParams;
  static constexpr bool kManyRegisters = true;
  LOSSK_DEVICE explicit StatsEpilogue(const Params& p) : p_(p), rows_(p.head) {}

  LOSSK_DEVICE void begin(int slot, int row) {
    rows_.begin(slot, row);
    found_[slot] = {};
  }

  template <int count, class Logits>
  LOSSK_DEVICE void add(int slot, int line, int column, const Logits& z) {
    RowState<float>& s = found_[slot];
    const Row row = rows_.row(line);
    const uint64_t picked = rows_.template picked<count>(slot, row, column);
    float top = s.max;
#pragma unroll
    for (int i = 0; i < count; ++i) {
      const int c = column + i / 2 * 8 + i % 2;
      if (c >= rows_.columns()) {
        z(i) = kNone;
        continue;
      }
      const bool is_picked = picked >> i & 1;
      z(i) = rows_.logit(row, rows_.unscaled(c, z(i)));
      if (is_picked) {
        rows_.for_picks(row, c, [&](int64_t, bool first) { z(i) -= first ? p_.head.margin : 0; });
        rows_.for_picks(row, c, [&](int64_t place, bool) { p_.picked[place] = z(i); });
      }
      s.aux_dot += aux(c) * z(i);
      s.min = z(i) < s.min ? z(i) : s.min;
      if (z(i) > s.top) {
        s.top = z(i);
        s.argmax = p_.head.first + c;
      }
      if (is_picked) z(i) = kNone;
      top = maximum(top, z(i));
    }
    const float shift = fabsf(top) == INFINITY ? 0 : top, by = s.sum == 0 ? 0 : expf(s.max - shift);
    s.shifted = by == 0 ? 0 : by * (s.shifted + s.sum * (s.max - shift));
    s.sum *= by, s.square *= by * by, s.aux *= by, s.max = top;
    float sum[4] = {}, shifted[4] = {}, square[4] = {}, weighed[4] = {};  // short chains: fewer roundings
#pragma unroll
    for (int i = 0; i < count; ++i) {
      const float d = z(i) - shift, w = expf(d);  // exactly: differences of statistics feel the last bits
      sum[i % 4] += w;
      shifted[i % 4] += w == 0 ? 0 : w * d;  // -inf logits: 0, not 0 * -inf
      square[i % 4] += w * w;
      const int c = column + i / 2 * 8 + i % 2;
      if (c < rows_.columns()) weighed[i % 4] += w * aux(c);
    }
    const auto total = [](const float (&x)[4]) { return (x[0] + x[1]) + (x[2] + x[3]); };
    s.sum += total(sum), s.shifted += total(shifted), s.square += total(square), s.aux += total(weighed);
  }

  LOSSK_DEVICE void end(int slot, int row, int part) {
    RowState<float>& s = found_[slot];
#pragma unroll
    for (int lanes = 1; lanes < 4; lanes *= 2) {
      RowState<float> other;
      other.max = shuffle_xor(s.max, lanes), other.sum = shuffle_xor(s.sum, lanes);
      other.shifted = shuffle_xor(s.shifted, lanes), other.square = shuffle_xor(s.square, lanes);
      other.aux = shuffle_xor(s.aux, lanes), other.aux_dot = shuffle_xor(s.aux_dot, lanes);
      other.min = shuffle_xor(s.min, lanes), other.top = shuffle_xor(s.top, lanes);
      other.argmax = shuffle_xor(static_cast<int>(s.argmax), lanes);
      s.merge(other);
    }
    if (rows_.row(row).there && lane_index() % 4 == 0)
      static_cast<RowState<float>*>(p_.partial)[int64_t{p_.first_part + part} * p_.head.rows + row] = s;
  }

 private:
  LOSSK_DEVICE float aux(int column) const { return p_.head.aux ? p_.head.aux[p_.head.first + column] : 1; }

  const Params& p_;
  LogitRows<true, slots> rows_;
  RowState<float> found_[slots];
};

}  // namespace lossk::head
