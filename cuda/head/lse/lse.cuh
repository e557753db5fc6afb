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

  // The logits z(0), ..., z(count - 1). z - max before the multiplication: the difference of two large numbers is
  // exact, of their multiples it is not. Trap: where all of them are -inf, or one is inf, it would be inf - inf.
  template <int count, class Logits>
  LOSSK_DEVICE void add(const Logits& z) {
    float top = max;
#pragma unroll
    for (int i = 0; i < count; ++i) top = maximum(top, z(i));
    const float shift = fabsf(top) == INFINITY ? 0 : top;
    sum *= exp2_approx((max - shift) * kLog2E);
#pragma unroll
    for (int i = 0; i < count; ++i) sum += exp2_approx((z(i) - shift) * kLog2E);
    max = top;
  }

  LOSSK_DEVICE void merge(const Partial& other) {
    const float top = maximum(max, other.max);
    const float shift = fabsf(top) == INFINITY ? 0 : top;
    sum = sum * exp2_approx((max - shift) * kLog2E) + other.sum * exp2_approx((other.max - shift) * kLog2E);
    max = top;
  }

  // Over the four lanes that share a row in an accumulator tile.
  LOSSK_DEVICE void merge_quad() {
#pragma unroll
    for (int lanes = 1; lanes < 4; lanes *= 2) merge({shuffle_xor(max, lanes), shuffle_xor(sum, lanes)});
  }

  LOSSK_DEVICE Partial partial() const { return {max, sum}; }
};

// Of a product input linear_weight^T, as product_mma_sync and product_wgmma call it.
template <class T, int slots>
class LseEpilogue {
 public:
  using Params = LseParams;
  LOSSK_DEVICE explicit LseEpilogue(const Params& p) : p_(p) {}

  LOSSK_DEVICE void begin(int slot, int row) {
    const int64_t wanted = row < p_.n ? p_.target[row] : -1;
    target_[slot] = wanted >= 0 && wanted < p_.v ? static_cast<int>(wanted) : -1;
    found_[slot] = {};
  }

  template <int count, class Logits>
  LOSSK_DEVICE void add(int slot, int row, int column, const Logits& z) {
#pragma unroll
    for (int i = 0; i < count; ++i) {
      const int v = column + i / 2 * 8 + i % 2;
      if (v == target_[slot]) p_.target_logit[row] = z(i);
      if (v >= p_.v) z(i) = kNone;
    }
    found_[slot].template add<count>(z);
  }

  LOSSK_DEVICE void end(int slot, int row, int part) {
    found_[slot].merge_quad();
    if (row < p_.n && lane_index() % 4 == 0) p_.partial[int64_t{part} * p_.n + row] = found_[slot].partial();
  }

 private:
  const Params& p_;
  int target_[slots];  // the column wanted, or -1
  RowLse found_[slots];
};

}  // namespace lossk::head
