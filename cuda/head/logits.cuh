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

// One thread's share of a tile's rows. A row's facts are read again for every tile: registers are for sums.
template <With with, int slots>
class LogitRows {
  static constexpr bool options = with == With::options;
  using H = HarmonicLogit<HarmonicFloats>;

 public:
  LOSSK_DEVICE explicit LogitRows(const Head& head) : head_(head) {}

  LOSSK_DEVICE void begin(int slot, int row) {
    const Row r = this->row(row);
    next_[slot] = r.there && head_.picks.count > 0 ? picked_columns(r)[0] : kNoColumn;
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

  LOSSK_DEVICE int columns() const { return head_.columns_there.of(head_.columns); }

  // raw + bias of one column, which is there.
  LOSSK_DEVICE float unscaled(int column, float raw) const {
    return options && head_.bias ? raw + head_.bias[head_.first + column] : raw;
  }
  // z, before the margin.
  LOSSK_DEVICE float logit(const Row& row, float unscaled) const {
    if constexpr (!options) return unscaled;
    const float x = row.scale * unscaled;
    return head_.softcap > 0 ? head_.softcap * tanhf(x / head_.softcap) : x;
  }
  // d softcap(x) / dx, at z = softcap(x).
  LOSSK_DEVICE float slope(float z) const {
    if (!options || head_.softcap <= 0) return 1;
    const float t = z / head_.softcap;
    return 1 - t * t;
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

  // visit(i, place in the caller's index [N, K]) for each pick of this thread's `count` logits in a tile, numbered as
  // an epilogue's add has them.
  template <int count, class F>
  LOSSK_DEVICE void for_own_picks(int slot, const Row& row, int column, const F& visit) {
    const int lane_column = lane_index() % 4 * 2, first = head_.first + column - lane_column;
    if (next_[slot] - first >= 4 * count) return;  // no overflow: columns and tiles are in [0, INT_MAX]
    const int* columns = picked_columns(row);
    int k = first_pick(columns, first);
    for (; k < head_.picks.count && columns[k] - first < 4 * count; ++k) {
      const int c = columns[k] - first - lane_column;
      if (c >= 0 && c % 8 < 2) visit(c / 8 * 2 + c % 8, place_of(row, k));
    }
    next_[slot] = k < head_.picks.count ? columns[k] : kNoColumn;
  }

  // The same as bits: bit i where the i-th is picked.
  template <int count>
  LOSSK_DEVICE uint64_t picked(int slot, const Row& row, int column) {
    uint64_t bits = 0;
    for_own_picks<count>(slot, row, column, [&](int i, int64_t) { bits |= uint64_t{1} << i; });
    return bits;
  }

  // visit(place in the caller's index [N, K], is it the row's first entry) for each pick of a column.
  template <class F>
  LOSSK_DEVICE void for_picks(const Row& row, int column, const F& visit) const {
    const int* columns = picked_columns(row);
    for (int k = first_pick(columns, head_.first + column); k < head_.picks.count && columns[k] == head_.first + column;
         ++k) {
      const int64_t place = place_of(row, k);
      visit(place, place == row.id * head_.picks.count);
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
    while (low < high) {
      const int middle = (low + high) / 2;
      if (columns[middle] < column) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  const Head& head_;
  int next_[slots];  // the first pick that no tile has met yet, or earlier
};

}  // namespace lossk::head
