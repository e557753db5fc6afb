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
  // visit(i, exp(z(i) - max)).
  template <int count, class Logits, class F>
  LOSSK_DEVICE void add(const Logits& z, const F& visit) {
    float top = max;
#pragma unroll
    for (int i = 0; i < count; ++i) top = maximum(top, z(i));
    const float shift = fabsf(top) == INFINITY ? 0 : top;
    float part[4] = {};  // short chains of additions: fewer roundings, and none waits for the one before
#pragma unroll
    for (int i = 0; i < count; ++i) {
      const float w = exp2_approx((z(i) - shift) * kLog2E);
      part[i % 4] += w;
      visit(i, w);
    }
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

// exp(max - reference), the values of this thread's share of a row being relative to max. Where its quad has seen more
// than the reference, what it has seen is the reference: no p is more than 1. By all lanes of the warp.
LOSSK_DEVICE float sketch_weight(const SketchParams& p, const Row& row, int line, float max) {
  float most = max;
#pragma unroll
  for (int lanes = 1; lanes < 4; lanes *= 2) most = maximum(most, shuffle_xor(most, lanes));
  if (!row.there) return 0;
  const float reference = p.reference[line], to = most > reference ? most : reference;
  return max == to ? 1 : exp2_approx((max - to) * kLog2E);
}
LOSSK_DEVICE void write_sketch(const SketchParams& p, int first_row, int column, float sum) {
  p.sums[int64_t{first_row / kSketchRows} * p.v + column] = static_cast<uint16_t>(pack_bf16(sum, 0));
}

// lse, and the logits of the picks. Of a product input linear_weight^T, as product_mma_sync and product_wgmma call it.
// `sketch`: and the sums of exp(z) over the rows of a tile, relative to their reference.
template <class T, int slots, With with, bool sketch>
class LseEpilogue {
 public:
  using Params = StatsParams;
  static constexpr bool kManyRegisters = with != With::nothing && sketch, kSumsColumns = sketch, kSliced = false;
  LOSSK_DEVICE explicit LseEpilogue(const Params& p) : p_(p), rows_(p.head) {}

  LOSSK_DEVICE void begin(int slot, int row) {
    rows_.begin(slot, row);
    found_[slot] = {};
    if constexpr (kSums) slope_[slot] = 0;
  }

  template <int count, class Logits>
  LOSSK_DEVICE void add(int slot, int line, int column, const Logits& z) {
    const Row row = rows_.row(line);
    const int columns = rows_.columns();
    rows_.template make_logits<count>(row, column, columns, z);
    const TilePicks picks = rows_.template picks<count>(slot, row, column);
    uint64_t target = 0;  // where the margin came off
    rows_.template change_picked<count>(rows_.picked(picks, row), z, [&](int i, float x) {
      if (column + i / 2 * 8 + i % 2 >= columns) return x;
      if constexpr (with != With::nothing)
        rows_.for_picks(picks, row, i, [&](int64_t, bool first) {
          if constexpr (with == With::options) x -= first ? p_.head.margin : 0;
          if constexpr (with == With::distance) x = first ? 0 : x;
          target |= uint64_t{first} << i;
        });
      rows_.for_picks(picks, row, i, [&](int64_t place, bool) { p_.picked[place] = x; });
      return x;
    });
    if constexpr (kSums && !sketch) {
      float part[4] = {};
      if (columns - column >= 4 * count)
#pragma unroll
        for (int i = 0; i < count; ++i) part[i % 4] += z(i);
      else
#pragma unroll
        for (int i = 0; i < count; ++i) part[i % 4] += column + i / 2 * 8 + i % 2 < columns ? z(i) : 0;
      slope_[slot] += (part[0] + part[1]) + (part[2] + part[3]);
    }
    // As many at a time as a narrow tile has, so that a row's bits are the same with and without a sketch.
    constexpr int kAtATime = count < 32 ? count : 32;
#pragma unroll
    for (int first = 0; first < count; first += kAtATime) {
      const float before = found_[slot].max;
      float slope = 0;
      found_[slot].template add<kAtATime>(
          [&](int i) -> float& { return z(first + i); },
          [&](int i, float w) {
            if constexpr (kSlopes)
              if (p_.sketch.slopes && w != 0) {
                const bool is_target = target >> (first + i) & 1;
                if constexpr (with == With::options)  // of what z was before the margin
                  slope += w * rows_.slope(z(first + i) + (is_target ? p_.head.margin : 0));
                else if (row.there)
                  slope += w * (is_target ? rows_.harmonic_slope(row, row.target) : rows_.slope_at(row, z(first + i)));
              }
            if constexpr (sketch) z(first + i) = row.there ? w : 0;
          });
      if constexpr (kSlopes) slope_[slot] = slope_[slot] * rescale(before, found_[slot].max) + slope;
      if constexpr (sketch)  // relative to the same maximum
#pragma unroll
        for (int i = 0; i < first; ++i) z(i) = row.there ? z(i) * rescale(before, found_[slot].max) : 0;
    }
  }

  LOSSK_DEVICE float max(int slot) const { return found_[slot].max; }  // that this thread has met
  LOSSK_DEVICE float weight(int slot, int row) const {
    return sketch_weight(p_.sketch, rows_.row(row), row, found_[slot].max);
  }
  LOSSK_DEVICE void column(int first_row, int column, float sum) const {
    if (column < rows_.columns()) write_sketch(p_.sketch, first_row, p_.head.first + column, sum);
  }

  LOSSK_DEVICE void end(int slot, int row, int part) {
    const float before = found_[slot].max;
    found_[slot].merge_quad();
    const int64_t place = int64_t{p_.first_part + part} * p_.head.rows + row;
    const bool writes = rows_.row(row).there && lane_index() % 4 == 0;
    if (writes) static_cast<Partial*>(p_.partial)[place] = found_[slot].partial();
    if constexpr (kSums) {
      if (!p_.sketch.slopes) return;
      float slope = slope_[slot] * (sketch ? rescale(before, found_[slot].max) : 1);
#pragma unroll
      for (int lanes = 1; lanes < 4; lanes *= 2) slope += shuffle_xor(slope, lanes);
      if (writes) p_.sketch.slopes[place] = slope;
    }
  }

 private:
  // Sums of slopes, or of a distance's logits.
  static constexpr bool kSlopes = with != With::nothing && sketch, kSums = kSlopes || with == With::distance;

  LOSSK_DEVICE static float rescale(float before, float after) {
    return before == kNone ? 0 : exp2_approx((before - (fabsf(after) == INFINITY ? 0 : after)) * kLog2E);
  }

  const Params& p_;
  LogitRows<with> rows_;
  RowLse found_[slots];
  float slope_[kSums ? slots : 1];
};
template <class T, int slots>
using PlainLse = LseEpilogue<T, slots, With::nothing, false>;
template <class T, int slots>
using AnyLse = LseEpilogue<T, slots, With::options, false>;
template <class T, int slots>
using PlainSketch = LseEpilogue<T, slots, With::nothing, true>;
template <class T, int slots>
using AnySketch = LseEpilogue<T, slots, With::options, true>;
template <class T, int slots>
using DistanceLse = LseEpilogue<T, slots, With::distance, false>;
template <class T, int slots>
using DistanceSketch = LseEpilogue<T, slots, With::distance, true>;

// Every statistic. The sums leave the picks out: merge_rows adds them, and has lse_excl without cancellation.
template <class T, int slots, bool sketch>
class FullEpilogue {
 public:
  using Params = StatsParams;
  static constexpr bool kManyRegisters = true, kSumsColumns = sketch, kSliced = false;
  LOSSK_DEVICE explicit FullEpilogue(const Params& p) : p_(p), rows_(p.head) {}

  LOSSK_DEVICE void begin(int slot, int row) {
    rows_.begin(slot, row);
    found_[slot] = {};
  }

  template <int count, class Logits>
  LOSSK_DEVICE void add(int slot, int line, int column, const Logits& z) {
    FullState& s = found_[slot];
    const Row row = rows_.row(line);
    const int columns = rows_.columns();
    rows_.template make_logits<count>(row, column, columns, z);
    const TilePicks picks = rows_.template picks<count>(slot, row, column);
    const uint64_t picked = rows_.picked(picks, row);
    rows_.template change_picked<count>(picked, z, [&](int i, float x) {
      if (column + i / 2 * 8 + i % 2 >= columns) return x;
      rows_.for_picks(picks, row, i, [&](int64_t, bool first) { x -= first ? p_.head.margin : 0; });
      rows_.for_picks(picks, row, i, [&](int64_t place, bool) { p_.picked[place] = x; });
      return x;
    });
    float top = s.max;
#pragma unroll
    for (int i = 0; i < count; ++i) {
      const int c = column + i / 2 * 8 + i % 2;
      if (c >= columns) continue;
      s.aux_dot += aux(c) * z(i);
      s.min = z(i) < s.min ? z(i) : s.min;
      if (z(i) > s.top) {
        s.top = z(i);
        s.argmax = p_.head.first + c;
      }
      if (picked >> i & 1) z(i) = kNone;
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
      if (c < columns) weighed[i % 4] += w * aux(c);
      if constexpr (sketch) z(i) = row.there ? w : 0;
    }
    const auto total = [](const float (&x)[4]) { return (x[0] + x[1]) + (x[2] + x[3]); };
    s.sum += total(sum), s.shifted += total(shifted), s.square += total(square), s.aux += total(weighed);
  }

  LOSSK_DEVICE float max(int slot) const { return found_[slot].max; }  // that this thread has met
  LOSSK_DEVICE float weight(int slot, int row) const {
    return sketch_weight(p_.sketch, rows_.row(row), row, found_[slot].max);
  }
  LOSSK_DEVICE void column(int first_row, int column, float sum) const {
    if (column < rows_.columns()) write_sketch(p_.sketch, first_row, p_.head.first + column, sum);
  }

  LOSSK_DEVICE void end(int slot, int row, int part) {
    FullState& s = found_[slot];
#pragma unroll
    for (int lanes = 1; lanes < 4; lanes *= 2) {
      FullState other;
      other.max = shuffle_xor(s.max, lanes), other.sum = shuffle_xor(s.sum, lanes);
      other.shifted = shuffle_xor(s.shifted, lanes), other.square = shuffle_xor(s.square, lanes);
      other.aux = shuffle_xor(s.aux, lanes), other.aux_dot = shuffle_xor(s.aux_dot, lanes);
      other.min = shuffle_xor(s.min, lanes), other.top = shuffle_xor(s.top, lanes);
      other.argmax = shuffle_xor(s.argmax, lanes);
      s.merge(other);
    }
    if (rows_.row(row).there && lane_index() % 4 == 0)
      static_cast<FullState*>(p_.partial)[int64_t{p_.first_part + part} * p_.head.rows + row] = s;
  }

 private:
  LOSSK_DEVICE float aux(int column) const { return p_.head.aux ? p_.head.aux[p_.head.first + column] : 1; }

  const Params& p_;
  LogitRows<With::options> rows_;
  FullState found_[slots];
};
template <class T, int slots>
using FullStats = FullEpilogue<T, slots, false>;
template <class T, int slots>
using FullSketch = FullEpilogue<T, slots, true>;

}  // namespace lossk::head
