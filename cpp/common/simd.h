// Vectors by the compiler's own extension: one source for AVX-512, AVX2 and plain SSE2 / NEON.
//
// Everything is a template on Isa, a struct of a CPU's constants (kernels_*.cpp). Trap: a function that is not would be
// compiled in several files with different flags under one name, and the linker may keep the one this CPU cannot run.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>

namespace lossk {

template <class Isa, class T>
struct Simd {
  static constexpr int64_t width = Isa::vector_bytes / sizeof(T);
  typedef T V __attribute__((vector_size(Isa::vector_bytes)));

  static V load(const T* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
  static void store(T* p, V v) { std::memcpy(p, &v, sizeof v); }
  static V fill(T x) { return x - V{}; }

  static V max(V a, V b) { return a > b ? a : b; }
  static V min(V a, V b) { return a < b ? a : b; }
  static T sum(V v) {  // pairwise, in one fixed order
    T a[width];
    store(a, v);
    for (int64_t n = width / 2; n > 0; n /= 2)
      for (int64_t i = 0; i < n; ++i) a[i] += a[i + n];
    return a[0];
  }
  static T highest(V v) {
    T best = v[0];
    for (int64_t i = 1; i < width; ++i) best = v[i] > best ? v[i] : best;
    return best;
  }
  static T lowest(V v) {
    T best = v[0];
    for (int64_t i = 1; i < width; ++i) best = v[i] < best ? v[i] : best;
    return best;
  }

  static V bf16(V x) {  // rounded to nearest even; nan stays nan
    typedef uint32_t U __attribute__((vector_size(Isa::vector_bytes)));
    U bits;
    std::memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000;
    V y;
    std::memcpy(&y, &bits, sizeof y);
    return x != x ? x : y;
  }

  static V exp(V x) {
    if constexpr (sizeof(T) == 8) {
      for (int64_t i = 0; i < width; ++i) x[i] = std::exp(x[i]);
      return x;
    } else {
      return exp_float(x);
    }
  }

  static V log(V x) {
    if constexpr (sizeof(T) == 8) {
      for (int64_t i = 0; i < width; ++i) x[i] = std::log(x[i]);
      return x;
    } else {
      return log_float(x);
    }
  }

  static V tanh(V x) {
    if constexpr (sizeof(T) == 8) {
      for (int64_t i = 0; i < width; ++i) x[i] = std::tanh(x[i]);
      return x;
    } else {
      // Near 0 the quotient below would cancel: there an odd polynomial (Cephes, tanhf).
      const V a = x < 0 ? -x : x, s = x * x;
      V p = fill(-5.70498872745e-3f);
      for (T c : {2.06390887954e-2f, -5.37397155531e-2f, 1.33314422036e-1f, -3.33332819422e-1f}) p = p * s + c;
      const V big = 1 - 2 / (exp(2 * a) + 1);
      return a < 0.625f ? x * s * p + x : (x < 0 ? -big : big);
    }
  }

 private:
  // e^x to about 1 ulp (Cephes, expf); 0 below the smallest normal number, +inf above the largest.
  static V exp_float(V x) {
    const V lo = fill(-87.33654f), hi = fill(88.72283f), zero{};
    const V c = x < lo ? lo : (x > hi ? hi : x);
    const V n = (c * 1.44269504f + 12582912.0f) - 12582912.0f;  // 1.5 * 2^23: rounds to the nearest integer
    V r = c - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    V p = fill(1.9875691500e-4f);
    for (T k : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
      p = p * r + k;
    p = p * r * r + r + 1;
    typedef int32_t I __attribute__((vector_size(Isa::vector_bytes)));
    // 2^n in two factors: n = 128 has no exponent field of its own.
    const I whole = __builtin_convertvector(n, I), half = whole >> 1;
    const I e1 = (half + 127) << 23, e2 = (whole - half + 127) << 23;
    V f1, f2;
    std::memcpy(&f1, &e1, sizeof f1);
    std::memcpy(&f2, &e2, sizeof f2);
    const V y = p * f1 * f2;
    return x < lo ? zero : (x > hi ? fill(INFINITY) : (x != x ? x : y));
  }

  // log x to about 1 ulp (Cephes, logf), also of subnormal numbers.
  static V log_float(V x) {
    typedef int32_t I __attribute__((vector_size(Isa::vector_bytes)));
    const V zero{}, normal = x < 1.17549435e-38f ? x * 8388608.0f : x;  // 2^23
    I bits;
    std::memcpy(&bits, &normal, sizeof bits);
    V e = __builtin_convertvector((bits >> 23) - 126, V), m;
    bits = (bits & 0x007fffff) | 0x3f000000;
    std::memcpy(&m, &bits, sizeof m);  // in [1/2, 1)
    e = x < 1.17549435e-38f ? e - 23 : e;
    e = m < 0.707106781f ? e - 1 : e;
    m = m < 0.707106781f ? m + m - 1 : m - 1;
    V p = fill(7.0376836292e-2f);
    for (T k :
         {-1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f, 1.4249322787e-1f, -1.6668057665e-1f, 2.0000714765e-1f,
          -2.4999993993e-1f, 3.3333331174e-1f})
      p = p * m + k;
    const V square = m * m, y = m * square * p + e * -2.12194440e-4f - square * 0.5f;
    const V result = m + y + e * 0.693359375f;
    return x > 0 ? (x == INFINITY ? x : result) : (x == 0 ? fill(-INFINITY) : zero / zero);
  }
};

}  // namespace lossk
