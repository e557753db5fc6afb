// A product's sums as logits: the part that every epilogue of logits begins with.
#pragma once
#include "device/math.h"
#include "device/warp.h"
#include "head/head.h"

namespace lossk::head {

using namespace device;

constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

struct Row {
  bool there;
  int64_t id;  // among the caller's rows
  float scale;
  float offset, eps, target;  // of distances
};

// What makes logits of a product: nothing, what Head::plain denies, or a distance.
enum class With { nothing, options, distance };

// HarmonicLogit's arithmetic. lg2's error near 1, 2^-22, is that of rounding its argument, times power.
struct HarmonicFloats {
  using T = float;
  using V = float;
  LOSSK_HOST_DEVICE static float fill(float x) { return x; }
  LOSSK_HOST_DEVICE static float log(float x) {
#if defined(__CUDACC__) && !defined(__CUDA_ARCH__)
    return logf(x);  // a host's side, which nobody calls
#else
    return kLn2 * log2_approx(x);
#endif
  }
};

// Of a row's picks, those begin .. end - 1 that lie in a tile; `column`: this thread's first.
struct TilePicks {
  int column = 0, begin = 0, end = 0;
};

// One thread's share of a tile's rows. A row's facts are read again for every tile: registers are for sums.
template <With with>
class LogitRows {
  static constexpr bool options = with == With::options;
  using H = HarmonicLogit<HarmonicFloats>;

 public:
  LOSSK_DEVICE explicit LogitRows(const Head& head) : head_(head) {}

  LOSSK_DEVICE void begin(int slot, int row) {
    const Row r = this->row(row);
    const int first = r.there && head_.picks.count > 0 ? picked_columns(r)[0] : kNoColumn;
    following_ = slot == 0 ? first : min(following_, first);
  }

  LOSSK_DEVICE Row row(int row) const {
    Row r{row < head_.rows_there.of(head_.rows), 0, 1, 0, 0, 0};
    if (!r.there) return r;
    r.id = head_.id(row);
    if (options && head_.scale) r.scale = head_.scale[r.id];
    if constexpr (with == With::distance) {
      const float* of = head_.terms + r.id;
      r.scale = of[0], r.offset = of[head_.of], r.eps = of[2 * head_.of], r.target = of[3 * head_.of];
    }
    return r;
  }

  // Trap: read once a tile, not for each logit: the count may lie in memory.
  LOSSK_DEVICE int columns() const { return head_.columns_there.of(head_.columns); }

  // raw + bias of one column, which is there.
  LOSSK_DEVICE float unscaled(int column, float raw) const {
    return options && head_.bias ? raw + head_.bias[head_.first + column] : raw;
  }
  // z, before the margin.
  LOSSK_DEVICE float logit(const Row& row, float unscaled) const {
    if constexpr (!options) return unscaled;
    const float x = row.scale * unscaled;
    return head_.softcap.cap > 0 ? head_.softcap.cap * tanhf(x * head_.softcap.per) : x;
  }
  // d softcap(x) / dx, at z = softcap(x): 1 - (z / cap)^2, whose difference is exact where z is near cap.
  LOSSK_DEVICE float slope(float z) const {
    if (!options || head_.softcap.cap <= 0) return 1;
    const auto [cap, per] = head_.softcap;
    return (cap - z) * per * ((cap + z) * per);
  }

  // A distance's t of one column, which is there; its logit, and d z / d(-h).
  LOSSK_DEVICE float distance(const Row& row, int column, float raw) const {
    return H::distance(head_.distance, row.scale, row.offset, head_.bias[head_.first + column], raw);
  }
  LOSSK_DEVICE float harmonic(const Row& row, float t) const {
    return H::logit(head_.distance, head_.power, t, row.eps);
  }
  LOSSK_DEVICE float harmonic_slope(const Row& row, float t) const {
    return H::slope(head_.distance, head_.power, row.scale, t, row.eps);
  }
  // The same of a logit.
  LOSSK_DEVICE float slope_at(const Row& row, float z) const {
    const float t = exp2_approx(z * -kLog2E / head_.power) - row.eps;
    return harmonic_slope(row, is_squared(head_.distance) ? t : sqrtf(fmaxf(t, 0)));
  }

  // The product's sums z(0), ..., z(count - 1) of this thread's columns column, column + 1, column + 8, ... become
  // logits, before the margin; -inf from `columns` on.
  template <int count, class Logits>
  LOSSK_DEVICE void make_logits(const Row& row, int column, int columns, const Logits& z) const {
    const auto place = [&](int i) { return column + i / 2 * 8 + i % 2; };
    if constexpr (options) {
      if (head_.bias)
#pragma unroll
        for (int i = 0; i < count; ++i)
          if (place(i) < columns) z(i) += head_.bias[head_.first + place(i)];
#pragma unroll
      for (int i = 0; i < count; ++i) z(i) *= row.scale;
      if (head_.softcap.cap > 0)
#pragma unroll
        for (int i = 0; i < count; ++i) z(i) = head_.softcap.cap * tanhf(z(i) * head_.softcap.per);
    }
    if constexpr (with == With::distance) {
      // Trap: without these branches ptxas begins with all the loads, and finds no registers for them.
      constexpr int kGroup = 8;
#pragma unroll
      for (int first = 0; first < count; first += kGroup)
        if (place(first) < columns)
#pragma unroll
          for (int i = first; i < first + kGroup; ++i)
            if (place(i) < columns) z(i) = row.there ? harmonic(row, distance(row, place(i), z(i))) : 0;
    }
    if (columns - column < 4 * count)
#pragma unroll
      for (int i = 0; i < count; ++i) z(i) = place(i) < columns ? z(i) : -INFINITY;
  }

  // The picks that lie in the tile's columns, once for each of a thread's rows and tile, in order; mostly none. One
  // number says so for all its rows: a number each would be eight registers.
  template <int count>
  LOSSK_DEVICE TilePicks picks(int slot, const Row& row, int column) {
    const int lane_column = lane_index() % 4 * 2, first = head_.first + column - lane_column;
    if (slot == 0) next_ = following_;
    if (next_ - first >= 4 * count) return {};  // no overflow: columns and tiles are in [0, INT_MAX]
    if (slot == 0) following_ = kNoColumn;
    if (!row.there) return {};
    const int* columns = picked_columns(row);
    TilePicks found{first + lane_column, first_pick(columns, first), 0};
#pragma unroll 1  // picks are rare: these loops' code is to be short
    for (found.end = found.begin; found.end < head_.picks.count; ++found.end)
      if (columns[found.end] - first >= 4 * count) break;
    if (found.end < head_.picks.count) following_ = min(following_, columns[found.end]);
    return found;
  }

  // visit(i, place in the caller's index [N, K]) for those of this thread's logits, numbered as an epilogue's add does.
  template <class F>
  LOSSK_DEVICE void for_own_picks(const TilePicks& picks, const Row& row, const F& visit) const {
#pragma unroll 1
    for (int k = picks.begin; k < picks.end; ++k) {
      const int c = picked_columns(row)[k] - picks.column;
      if (c >= 0 && c % 8 < 2) visit(c / 8 * 2 + c % 8, place_of(row, k));
    }
  }

  // The same as bits: bit i where the i-th is picked.
  LOSSK_DEVICE uint64_t picked(const TilePicks& picks, const Row& row) const {
    uint64_t bits = 0;
    for_own_picks(picks, row, [&](int i, int64_t) { bits |= uint64_t{1} << i; });
    return bits;
  }

  // visit(place in the caller's index [N, K], is it the row's first entry) for each pick of the i-th.
  template <class F>
  LOSSK_DEVICE void for_picks(const TilePicks& picks, const Row& row, int i, const F& visit) const {
    for_own_picks(picks, row, [&](int own, int64_t place) {
      if (own == i) visit(place, place == row.id * head_.picks.count);
    });
  }

  // z(i) = change(i, z(i)) for each bit i that is set.
  // Trap: registers have no index. A picked logit, of which there is hardly one in a tile, is looked for among all;
  // code for a pick at each of them would be nine tenths of a kernel, and too much for an instruction cache.
  template <int count, class Logits, class F>
  LOSSK_DEVICE static void change_picked(uint64_t bits, const Logits& z, const F& change) {
#pragma unroll 1
    for (; bits; bits &= bits - 1) {
      const uint64_t below = (bits & ~(bits - 1)) - 1;
      const int own = count_bits(static_cast<uint32_t>(below)) + count_bits(static_cast<uint32_t>(below >> 32));
      float x = 0;
#pragma unroll
      for (int i = 0; i < count; ++i) x = i == own ? z(i) : x;
      x = change(own, x);
#pragma unroll
      for (int i = 0; i < count; ++i) z(i) = i == own ? x : z(i);
    }
  }

 private:
  LOSSK_DEVICE const int* picked_columns(const Row& row) const {
    return head_.picks.column + row.id * head_.picks.count;
  }
  LOSSK_DEVICE int64_t place_of(const Row& row, int k) const {
    const int64_t line = row.id * head_.picks.count;
    return line + head_.picks.entry[line + k];
  }
  // The first of the row's picks at or after a column.
  LOSSK_DEVICE int first_pick(const int* columns, int column) const {
    int low = 0, high = head_.picks.count;
#pragma unroll 1
    while (low < high) {
      const int middle = (low + high) / 2;
      if (columns[middle] < column) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  const Head& head_;
  int next_, following_;  // the first pick of all rows that no tile before this one, or with this one, has met
};

}  // namespace lossk::head
