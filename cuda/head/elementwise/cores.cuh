// One struct per distance, as in cpp/head/elementwise_cores.h: what an element adds to a pair's sums, the distance of
// the sums, and its slope.
//
// Trap: a duplicate of the target's column must have its distance to the last bit in whatever kernel. Where a product
// is added the sum says multiply_add, or the compiler might do so in one kernel and not in another.
#pragma once
#include <type_traits>

#include "device/math.h"
#include "head/elementwise/params.h"

namespace lossk::head {

using namespace device;

LOSSK_DEVICE int bits_of(float x) {
  int bits;
  memcpy(&bits, &x, 4);
  return bits;
}
LOSSK_DEVICE float of_bits(int bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}
// Of numbers >= 0 as integers, which order them alike and nan above all: no nan is lost.
LOSSK_DEVICE float larger(float a, float b) { return of_bits(max(bits_of(a), bits_of(b))); }
// size sgn(delta), for a size that may be anything where delta is 0.
LOSSK_DEVICE float toward(float delta, float size) {
  return delta == 0 ? 0 : of_bits(bits_of(size) ^ (bits_of(delta) & INT_MIN));
}

struct Core {
  static constexpr int sums = 1;               // of a pair
  static constexpr bool light = true;          // few instructions an element, and registers
  static constexpr bool from_largest = false;  // sums are relative to the largest |delta|, found in a pass before
  static constexpr bool two = false;           // slope takes e
  float p;

  LOSSK_DEVICE static void join(float* total, const float* part) { total[0] += part[0]; }
  LOSSK_DEVICE static float second(const float*) { return 0; }
  LOSSK_DEVICE static void coefs(float&, float&, float) {}
};

// Its sgn(delta) / kLarge is two instructions, as on the CPU, where the sign of what is below 2^-80 counts less than
// whole.
struct Manhattan : Core {
  static constexpr float kLarge = 0x1p80f;
  LOSSK_DEVICE static void add(float* sum, float x, float w, float, float) { sum[0] += fabsf(x - w); }
  LOSSK_DEVICE static float distance(const float* sum, float) { return sum[0]; }
  LOSSK_DEVICE static void coefs(float& a, float&, float) { a *= kLarge; }
  LOSSK_DEVICE static float slope(float own, float other, float a, float, float) {
    return a * fminf(fmaxf(own - other, -1 / kLarge), 1 / kLarge);
  }
};

struct Chebyshev : Core {
  LOSSK_DEVICE static void add(float* sum, float x, float w, float, float) { sum[0] = larger(sum[0], fabsf(x - w)); }
  LOSSK_DEVICE static void join(float* total, const float* part) { total[0] = larger(total[0], part[0]); }
  LOSSK_DEVICE static float distance(const float* sum, float) { return sum[0]; }
};

// The same with the place, from 1 on, of the first that is largest, which alone has a slope; 0 where all are 0.
struct Farthest : Core {
  static constexpr int sums = 2;
  static constexpr bool two = true;
  LOSSK_DEVICE static void add(float* sum, float x, float w, float, float place) {
    const float part[] = {fabsf(x - w), place};
    join(sum, part);
  }
  LOSSK_DEVICE static void join(float* total, const float* part) {
    if (bits_of(part[0]) > bits_of(total[0])) total[0] = part[0], total[1] = part[1];
  }
  LOSSK_DEVICE static float distance(const float* sum, float) { return sum[0]; }
  LOSSK_DEVICE static float second(const float* sum) { return sum[1]; }
  LOSSK_DEVICE static float slope(float own, float other, float a, float e, float place) {
    return e == place ? toward(own - other, a) : 0;
  }
};

struct SmoothChebyshev : Core {
  static constexpr bool light = false, from_largest = true, two = true;
  LOSSK_DEVICE void add(float* sum, float x, float w, float largest, float) const {
    sum[0] += expf(p * (fabsf(x - w) - largest));
  }
  LOSSK_DEVICE float distance(const float* sum, float largest) const { return largest + logf(sum[0]) / p; }
  LOSSK_DEVICE static void coefs(float&, float& e, float d) { e = d; }
  LOSSK_DEVICE float slope(float own, float other, float a, float e, float) const {
    return toward(own - other, a * expf(p * (fabsf(own - other) - e)));
  }
};

// Any p: powers relative to the largest |delta|, so that none overflows and their sum does not vanish.
struct Minkowski : Core {
  static constexpr bool light = false, from_largest = true, two = true;
  LOSSK_DEVICE void add(float* sum, float x, float w, float largest, float) const {
    sum[0] += largest == 0 ? 0 : expf(p * logf(fabsf(x - w) / largest));
  }
  LOSSK_DEVICE float distance(const float* sum, float largest) const {
    // In double: float's log and exp would leave ten times the rounding.
    return largest == 0 ? largest : largest * static_cast<float>(exp(log(double{sum[0]}) / double{p}));
  }
  LOSSK_DEVICE static void coefs(float&, float& e, float d) { e = 1 / d; }
  LOSSK_DEVICE float slope(float own, float other, float a, float e, float) const {
    const float x = (p - 1) * logf(fabsf(own - other) * e);  // p < 1: tiny delta, no inf
    return toward(own - other, a * expf(x > 80 ? 80 : x));
  }
};

// p = halves / 2, without powers.
template <int halves>
struct MinkowskiOf : Core {
  LOSSK_DEVICE static void add(float* sum, float x, float w, float, float) {
    const float delta = fabsf(x - w), square = delta * delta;
    const float by = halves == 3 ? sqrtf(delta) : halves == 8 ? square : delta;
    sum[0] = multiply_add(by, halves == 3 || halves == 4 ? delta : square, sum[0]);
  }
  LOSSK_DEVICE static float distance(const float* sum, float) {
    if (halves == 4) return sqrtf(sum[0]);
    if (halves == 8) return sqrtf(sqrtf(sum[0]));
    const float root = cbrtf(sum[0]);
    return halves == 6 ? root : root * root;
  }
  // One division a power: d^(p-1) itself would vanish first.
  LOSSK_DEVICE static void coefs(float& a, float&, float d) {
    float by = a / (halves == 3 ? sqrtf(d) : d);
    for (int i = 4; i < halves; i += 2) by /= d;
    a = d == 0 ? 0 : by;
  }
  LOSSK_DEVICE static float slope(float own, float other, float a, float, float) {
    const float delta = own - other;
    if (halves == 4) return a * delta;
    if (halves == 6) return a * delta * fabsf(delta);
    if (halves == 8) return a * delta * (delta * delta);
    return toward(delta, a * sqrtf(fabsf(delta)));
  }
};

template <bool robust>
struct Canberra : Core {
  static constexpr bool light = false;
  LOSSK_DEVICE float reciprocal(float s) const { return reciprocal_approx(robust ? (s < p ? p : s) : s + p); }
  LOSSK_DEVICE void add(float* sum, float x, float w, float, float) const {
    sum[0] = multiply_add(fabsf(x - w), reciprocal(fabsf(x) + fabsf(w)), sum[0]);
  }
  LOSSK_DEVICE static float distance(const float* sum, float) { return sum[0]; }
  // sgn(delta) / s - sgn(own) |delta| / s^2, the latter where s is not the floor.
  LOSSK_DEVICE float slope(float own, float other, float a, float, float) const {
    const float s = fabsf(own) + fabsf(other), delta = own - other, r = reciprocal(s);
    const float change = robust && s < p ? 0 : toward(own, delta * r);
    return toward(delta, a * r * (1 - change));
  }
};

struct CanberraWeighted : Core {
  static constexpr int sums = 2;
  static constexpr bool light = false, two = true;
  LOSSK_DEVICE static float size(float x, float w) { return fabsf(x) + fabsf(w) + 1e-4f; }
  LOSSK_DEVICE void add(float* sum, float x, float w, float, float) const {
    const float s = size(x, w), weight = expf((p - 1) * logf(s));
    sum[0] = multiply_add(fabsf(x - w), weight, sum[0]), sum[1] = multiply_add(s, weight, sum[1]);
  }
  LOSSK_DEVICE static void join(float* total, const float* part) { total[0] += part[0], total[1] += part[1]; }
  LOSSK_DEVICE static float distance(const float* sum, float) { return sum[0] / sum[1]; }
  LOSSK_DEVICE static float second(const float* sum) { return sum[1]; }
  LOSSK_DEVICE static void coefs(float& a, float& e, float d) { a = a / e, e = d; }
  LOSSK_DEVICE float slope(float own, float other, float a, float e, float) const {
    const float s = size(own, other), by = a * expf((p - 1) * logf(s));
    return toward(own - other, by) + toward(own, by * ((p - 1) * fabsf(own - other) / s - e * p));
  }
};

// call.operator()<the kind's core>(); by_place: of the largest also where it is.
template <bool by_place, class Call>
auto with_core(const Metric<float>& m, const Call& call) {
  switch (m.kind) {
    case ElementDistance::chebyshev:
      return call.template operator()<std::conditional_t<by_place, Farthest, Chebyshev>>();
    case ElementDistance::smooth_chebyshev: return call.template operator()<SmoothChebyshev>();
    case ElementDistance::minkowski:
      if (m.p == 1) return call.template operator()<Manhattan>();
      if (m.p == 1.5f) return call.template operator()<MinkowskiOf<3>>();
      if (m.p == 2) return call.template operator()<MinkowskiOf<4>>();
      if (m.p == 3) return call.template operator()<MinkowskiOf<6>>();
      if (m.p == 4) return call.template operator()<MinkowskiOf<8>>();
      return call.template operator()<Minkowski>();
    case ElementDistance::canberra: return call.template operator()<Canberra<false>>();
    case ElementDistance::canberra_robust: return call.template operator()<Canberra<true>>();
    case ElementDistance::canberra_weighted: return call.template operator()<CanberraWeighted>();
    default: return call.template operator()<Manhattan>();
  }
}

}  // namespace lossk::head
