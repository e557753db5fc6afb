// Random numbers that are a function of seed and place, the same on a CPU and on a GPU: nothing is stored, a draw can
// be repeated, and a row's numbers do not depend on other rows.
#pragma once
#include "common/math.h"

namespace lossk {

struct Random4 {
  uint32_t x[4];
};

// Philox 4x32 with ten rounds: Salmon et al. 2011, Parallel Random Numbers: As Easy as 1, 2, 3, section 3.3.
LOSSK_BOTH Random4 philox(uint64_t seed, uint64_t low, uint64_t high) {
  uint32_t a = uint32_t(low), b = uint32_t(low >> 32), c = uint32_t(high), d = uint32_t(high >> 32);
  uint32_t key0 = uint32_t(seed), key1 = uint32_t(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t left = uint64_t{0xD2511F53} * a, right = uint64_t{0xCD9E8D57} * c;
    a = uint32_t(right >> 32) ^ b ^ key0, b = uint32_t(right);
    c = uint32_t(left >> 32) ^ d ^ key1, d = uint32_t(left);
    key0 += 0x9E3779B9, key1 += 0xBB67AE85;
  }
  return {{a, b, c, d}};
}

// What is added to a logit so that the column of the largest sum has the probability of the softmax. Trap: of a uniform
// number near 1 float32 keeps no distance to it, and one in 2^25 would become infinite: the side that is small counts.
LOSSK_BOTH float gumbel(uint32_t bits) {
  const bool lower = bits < 0x80000000u;
  const float side = (float(lower ? bits : ~bits) + 0.5f) * 2.3283064365386963e-10f;  // 2^-32
  const float exponential = lower ? -std::log(side) : -std::log1p(-side);
  return -std::log(exponential);
}

// The noise of columns 4 group .. 4 group + 3 of a row.
struct Gumbel4 {
  float x[4];
};
LOSSK_BOTH Gumbel4 gumbel_of(uint64_t seed, int64_t row, int64_t group) {
  const Random4 bits = philox(seed, uint64_t(group), uint64_t(row));
  return {{gumbel(bits.x[0]), gumbel(bits.x[1]), gumbel(bits.x[2]), gumbel(bits.x[3])}};
}

}  // namespace lossk
