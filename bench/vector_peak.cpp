// Additions of float in registers, as many as a core can: twelve independent chains, so that none waits for another.
#include <cstdint>

#ifdef __AVX512F__
constexpr int kBytes = 64;
#elif defined(__AVX2__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif
typedef float V __attribute__((vector_size(kBytes)));

// Makes `rounds` times 12 vector additions; returns how many float additions those are.
extern "C" int64_t add(int64_t rounds, float* out) {
  V a[12], b = V{} + 1e-9f;
#pragma GCC unroll 12
  for (int i = 0; i < 12; ++i) a[i] = V{} + float(i);
  for (int64_t k = 0; k < rounds; ++k) {
#pragma GCC unroll 12
    for (int i = 0; i < 12; ++i) {
      a[i] += b;
      asm volatile("" : "+x"(a[i]));  // or the compiler would add them up at once
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < 12; ++i) *out += a[i][0];  // unrolled like the others, or a lies in memory
  return rounds * 12 * (kBytes / sizeof(float));
}
