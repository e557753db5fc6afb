// The epilogue: logits in registers become a running maximum and sum for each row.
#pragma once
#include "device/math.h"
#include "device/warp.h"
#include "head/lse/params.h"

namespace lossk::head {

using namespace device;

constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;
constexpr float kNone = -INFINITY;  // the logit of a column that is not there

struct RowLse {
  float max = kNone;
  float sum = 0;

  // The logits z(0), ..., z(count - 1). exp(z - max) is one fused multiply-add and one ex2. Trap: where all of them are
  // -inf, inf - inf.
  template <int count, class Logits>
  LOSSK_DEVICE void add(const Logits& z) {
    float top = max;
#pragma unroll
    for (int i = 0; i < count; ++i) top = maximum(top, z(i));
    const float shift = top == kNone ? 0 : top * kLog2E;
    sum *= exp2_approx(multiply_add(max, kLog2E, -shift));
#pragma unroll
    for (int i = 0; i < count; ++i) sum += exp2_approx(multiply_add(z(i), kLog2E, -shift));
    max = top;
  }

  LOSSK_DEVICE void merge(const Partial& other) {
    const float top = maximum(max, other.max);
    const float shift = top == kNone ? 0 : top * kLog2E;
    sum = sum * exp2_approx(multiply_add(max, kLog2E, -shift)) +
          other.sum * exp2_approx(multiply_add(other.max, kLog2E, -shift));
    max = top;
  }

  // Over the four lanes that share a row in an accumulator tile.
  LOSSK_DEVICE void merge_quad() {
#pragma unroll
    for (int lanes = 1; lanes < 4; lanes *= 2) merge({shuffle_xor(max, lanes), shuffle_xor(sum, lanes)});
  }

  LOSSK_DEVICE Partial partial() const { return {max, sum}; }
};

// What a thread's accumulators give one of their rows.
struct Row {
  int target = -1;  // the column wanted, or none of them
  RowLse found;

  LOSSK_DEVICE void begin(const LseParams& p, int row) {
    const int64_t wanted = row < p.n ? p.target[row] : -1;
    target = wanted >= 0 && wanted < p.v ? static_cast<int>(wanted) : -1;
    found = {};
  }

  // float& z(2 j + c) is the logit of column first + 8 j + c: so mma and wgmma hand a thread its accumulators.
  template <int count, class Logits>
  LOSSK_DEVICE void add(const LseParams& p, int row, int first, const Logits& z) {
#pragma unroll
    for (int i = 0; i < count; ++i) {
      const int column = first + i / 2 * 8 + i % 2;
      if (column == target) p.target_logit[row] = z(i);
      if (column >= p.v) z(i) = kNone;
    }
    found.add<count>(z);
  }
};

}  // namespace lossk::head
