// The epilogue that turns logits into their gradient.
#pragma once
#include "head/product/store.cuh"

namespace lossk::head {

struct DlogitsParams {
  const int64_t* target;
  const float *lse, *coef;
  void* out;          // [rows, stride] of T
  int rows, columns;  // of the chunk
  int64_t first;      // the chunk's first column
  int stride;         // columns, to a multiple of 8: the rest is 0, for the products read it
};

template <class T, int slots>
class DlogitsEpilogue {
 public:
  using Params = DlogitsParams;
  LOSSK_DEVICE explicit DlogitsEpilogue(const Params& p) : p_(p) {}

  LOSSK_DEVICE void begin(int slot, int row) {
    coef_[slot] = row < p_.rows ? p_.coef[row] : 0;
    lse_[slot] = row < p_.rows ? p_.lse[row] : 0;
    const int64_t wanted = row < p_.rows ? p_.target[row] - p_.first : -1;
    target_[slot] = wanted >= 0 && wanted < p_.columns ? static_cast<int>(wanted) : -1;
  }

  template <int count, class Logits>
  LOSSK_DEVICE void add(int slot, int row, int column, const Logits& z) {
    if (row >= p_.rows) return;
    const int64_t line = int64_t{row} * p_.stride;
#pragma unroll
    for (int i = 0; i < count; i += 2) {
      const int c = column + i / 2 * 8;
      if (c >= p_.stride) continue;
      static_cast<uint32_t*>(p_.out)[(line + c) / 2] = pack<T>(dlogit(slot, c, z(i)), dlogit(slot, c + 1, z(i + 1)));
    }
  }

  LOSSK_DEVICE void end(int, int, int) {}

 private:
  // z - lse first: the difference of two large numbers is exact, of their multiples it is not.
  LOSSK_DEVICE float dlogit(int slot, int column, float z) const {
    constexpr float kLog2E = 1.4426950408889634f;
    if (coef_[slot] == 0 || column >= p_.columns) return 0;
    return coef_[slot] * (exp2_approx((z - lse_[slot]) * kLog2E) - (column == target_[slot] ? 1.f : 0.f));
  }

  const Params& p_;
  float coef_[slots], lse_[slots];
  int target_[slots];
};

}  // namespace lossk::head
