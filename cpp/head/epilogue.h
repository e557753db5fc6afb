// What happens to a segment of a row's logits once the product has made it: statistics, or the gradient.
#pragma once
#include <cstdint>

#include "head/distance.h"

namespace lossk {

// The vocabulary is always cut here, whatever N and the thread count: a row's sums then always have the same order.
// A multiple of every register tile (12 x 32, 6 x 16, 4 x 8).
constexpr int64_t kSegment = 384;

// z = softcap(scale_i (raw + bias_v)), then margin off the row's first pick; or a distance's, whose column is in bias,
// and 0 at the row's first pick.
template <class T>
struct Segment {
  int64_t first, count;  // its columns
  T softcap, margin;     // 0: none
  Distance distance;
  T power;
  int64_t picks;                                // indices per row
  alignas(64) T bias[kSegment], aux[kSegment];  // zero beyond count
  bool has_bias, row_sums;
  bool bf16;  // what the products make of g
  bool curved() const { return softcap > 0 || distance != Distance::none; }
};

template <class T>
struct RowTerms {
  T scale, offset = 0, eps = 0, target = 0;  // the last three of distances
  RowTerms(T s) : scale(s) {}
  RowTerms(T s, T o, T e, T t) : scale(s), offset(o), eps(e), target(t) {}
};

template <class T>
struct RowCoef {           // of linear_stats_backward, cpp/ops.cpp
  T lse = 0, lse_low = 0;  // low: what the rounding of the other left off
  T lse_excl = 0, lse_excl_low = 0;
  T a0 = 0, a1 = 0, a2 = 0, a3 = 0, aX = 0, b = 0;
  const T* pick = nullptr;  // [picks]; null: none
};

// Sums over the columns of a row's g = d loss / d raw, before the row's scale.
template <class T>
struct GradSums {
  T scale = 0;   // g (raw + bias): d loss / d scale; of a distance g alone
  T total = 0;   // g without its picks
  T square = 0;  // g^2
  void add(const GradSums& b) { scale += b.scale, total += b.total, square += b.square; }
};

template <class T>
struct Epilogue {
  // Statistics of one row's segment; logits[k] where index[k] lies in it. With every statistic (`full`) the sums leave
  // the picked logits out: the caller adds them once the whole row is merged, and has lse_excl without cancellation.
  // weights [kSegment], where not null: exp(z - state.max), zero beyond count.
  using Stats = void (*)(
      const Segment<T>&, const T* raw, const RowTerms<T>&, const int64_t* index, T* logits, RowState<T>& state,
      T* weights);
  // d loss / d raw over the segment (zero beyond count) -> g; returns its sums, where Segment::row_sums asks.
  using Grad = GradSums<T> (*)(
      const Segment<T>&, const T* raw, const RowTerms<T>&, const int64_t* index, const RowCoef<T>&, T* g);
  using Logits =
      void (*)(const Segment<T>&, const T* raw, const RowTerms<T>&, T* z);  // before the margin; -inf beyond count
  using Add = void (*)(T a, const T* x, T* y);                              // y += a x over a segment

  Stats stats_lse, stats_full;
  Grad grad_lse, grad_full;  // grad_lse: a0 and pick only
  Add add;
  Logits logits;
};

template <class T>
const Epilogue<T>& epilogue();

}  // namespace lossk
