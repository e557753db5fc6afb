// Logits of a distance, harmonic ones, from a product: the same text for a CPU's vectors and for a GPU.
//
//   euclidean  h = offset_i + column_v - raw    half a squared distance: offset = |x|^2 / 2, column = |w|^2 / 2
//   hamming    the same, half a distance of vectors of zeros and ones
//   cosine     h = offset_i - column_v raw      |x| (1 - cos): offset = |x|, column = 1 / |w|
//
//   z = -power log(t + eps_i), t = scale_i max(h, 0); of hamming and cosine, where t is a distance and not its square,
//   z = -power log(t^2 + eps_i)
//
// scale and eps are relative to the target's t + eps, so that arguments of log are near 1 where it matters, and the
// target's z is 0. Its t is given: of the product's, which cancels near a centre, too little would be left.
#pragma once
#include "common/math.h"

namespace lossk {

enum class Distance : int { none, euclidean, hamming, cosine };
constexpr const char* kDistanceNames[] = {"none", "euclidean", "hamming", "cosine"};

LOSSK_BOTH constexpr bool is_squared(Distance k) { return k == Distance::euclidean; }

// M is the arithmetic, as in compare.h.
template <class M>
struct HarmonicLogit {
  using T = typename M::T;
  using V = typename M::V;

  LOSSK_BOTH static V distance(Distance kind, T scale, T offset, V column, V raw) {
    const V h = kind == Distance::cosine ? offset - column * raw : (offset + column) - raw;
    return scale * (h > 0 ? h : M::fill(0));
  }
  LOSSK_BOTH static V sum(Distance kind, V t, T eps) { return (is_squared(kind) ? t : t * t) + eps; }
  LOSSK_BOTH static V logit(Distance kind, T power, V t, T eps) { return -power * M::log(sum(kind, t, eps)); }
  // dz / d(-h): 0 at a centre's side of the kink
  LOSSK_BOTH static V slope(Distance kind, T power, T scale, V t, T eps) {
    const V by_t = is_squared(kind) ? M::fill(power * scale) : 2 * power * scale * t;
    return t > 0 ? by_t / sum(kind, t, eps) : M::fill(0);
  }
};

}  // namespace lossk
