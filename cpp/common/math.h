// Arithmetic shared by every implementation, CPU and CUDA.
#pragma once
#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#define LOSSK_BOTH __host__ __device__ inline
#else
#define LOSSK_BOTH inline
#endif

namespace lossk {

template <class T>
LOSSK_BOTH constexpr T round_up(T x, T unit) {
  return (x + unit - 1) / unit * unit;
}

template <class T>
LOSSK_BOTH constexpr T ceil_div(T x, T unit) {
  return (x + unit - 1) / unit;
}

// Online log-sum-exp and its companions over some of a row's logits z, relative to their running maximum m.
// Sums are kept of w (z - m), not of w z: entropy = log s - sum w(z - m)/s then has no cancellation at a large lse.
template <class T, class Column = int64_t>
struct RowState {
  T max = -INFINITY;  // m over the logits summed here
  T sum = 0;          // sum w,         w = exp(z - m)
  T shifted = 0;      // sum w (z - m)
  T square = 0;       // sum w^2
  T slope = 0;        // sum w d softcap(x) / dx, where a sketch is made (but not with every statistic)
  T aux = 0;          // sum w aux_v
  T aux_dot = 0;      // sum aux_v z_v  (over all logits, also those left out of the sums above)
  T min = INFINITY;   // over all logits
  T top = -INFINITY;  // over all logits, with its column
  Column argmax = 0;  // the first of equal ones

  // Trap: two states that both saw only -inf must merge to that, not to exp(-inf + inf) = nan.
  template <class U, class C>
  LOSSK_BOTH void merge(const RowState<U, C>& b) {
    aux_dot += b.aux_dot;
    min = b.min < min ? b.min : min;
    if (b.top > top || (b.top == top && b.argmax < argmax)) top = b.top, argmax = b.argmax;
    if (b.sum == 0) return;
    const T m = b.max > max ? b.max : max;
    const T fa = sum == 0 ? T(0) : std::exp(max - m), fb = std::exp(b.max - m);
    const T sa = sum * fa, sb = b.sum * fb;
    shifted = (sum == 0 ? T(0) : shifted * fa + sa * (max - m)) + b.shifted * fb + sb * (b.max - m);
    square = square * fa * fa + b.square * fb * fb;
    aux = aux * fa + b.aux * fb;
    slope = slope * fa + b.slope * fb;
    sum = sa + sb;
    max = m;
  }

  // One more logit, with its share of every sum.
  LOSSK_BOTH void add(T z, T aux_v) {
    RowState one;
    one.max = z, one.sum = z == -INFINITY ? T(0) : T(1), one.square = one.sum, one.aux = aux_v * one.sum;
    merge(one);
  }

  LOSSK_BOTH T lse() const { return sum == 0 ? T(-INFINITY) : max + std::log(sum); }
  LOSSK_BOTH T mean_logit() const { return max + shifted / sum; }
  LOSSK_BOTH T entropy() const { return std::log(sum) - shifted / sum; }
  LOSSK_BOTH T lse2() const { return sum == 0 ? T(-INFINITY) : 2 * max + std::log(square); }
  LOSSK_BOTH T aux_mean() const { return aux / sum; }
};

}  // namespace lossk
