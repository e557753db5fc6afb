// A second set of sums for products whose every bit counts.
#pragma once
#include "head/product/config.h"

namespace lossk::head {

// d(0), ..., d(count - 1): what tensor cores add to.
template <class T, int count>
class Totals {
 public:
  template <class Sums>
  LOSSK_DEVICE void take(const Sums& d) {
#pragma unroll
    for (int i = 0; i < count; ++i) sums_[i] += d(i), d(i) = 0;
  }
  template <class Sums>
  LOSSK_DEVICE void give_back(const Sums& d) {
#pragma unroll
    for (int i = 0; i < count; ++i) d(i) += sums_[i];
  }
  // Not with give_back: zeros would take registers from the epilogue.
  LOSSK_DEVICE void clear() {
#pragma unroll
    for (float& sum : sums_) sum = 0;
  }

 private:
  float sums_[kSumsOften<T> ? count : 1] = {};
};

}  // namespace lossk::head
