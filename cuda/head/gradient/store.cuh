// Epilogue that writes a product: rounded, or on top of what was there.
#pragma once
#include "head/gradient/params.h"
#include "head/rows/narrow.cuh"

namespace lossk::head {

using namespace device;

template <class T, int slots>
class StoreEpilogue {
 public:
  using Params = StoreParams;
  static constexpr bool kManyRegisters = false;
  LOSSK_DEVICE explicit StoreEpilogue(const Params& p) : p_(p) {}

  LOSSK_DEVICE void begin(int, int) {}

  template <int count, class Sums>
  LOSSK_DEVICE void add(int, int row, int column, const Sums& z) {
    if (row >= (p_.count ? *p_.count : p_.rows)) return;
    const float back = p_.unit ? 1 / p_.unit[p_.unit_by_row ? row : 0] : 1;
    const int64_t sums = int64_t{row} * p_.columns, line = p_.ids ? int64_t{p_.ids[row]} * p_.columns : sums;
#pragma unroll
    for (int i = 0; i < count; i += 2) {
      const int c = column + i / 2 * 8;
      if (c >= p_.columns) continue;
      const bool both = c + 1 < p_.columns;
      float low = z(i), high = z(i + 1);
      if (!p_.first) {
        low += p_.sum[sums + c];
        if (both) high += p_.sum[sums + c + 1];
      }
      if (p_.last) {
        write(line + c, low * back, high * back, both);
      } else {
        p_.sum[sums + c] = low;
        if (both) p_.sum[sums + c + 1] = high;
      }
    }
  }

  LOSSK_DEVICE void end(int, int, int) {}

 private:
  LOSSK_DEVICE void write(int64_t place, float low, float high, bool both) const {
    if (std::is_same_v<T, float> || p_.wide) {
      static_cast<float*>(p_.out)[place] = low;
      if (both) static_cast<float*>(p_.out)[place + 1] = high;
      return;
    }
    const uint32_t pair = pack<T>(low, high);
    if (both && place % 2 == 0) {
      static_cast<uint32_t*>(p_.out)[place / 2] = pair;
    } else {
      static_cast<uint16_t*>(p_.out)[place] = static_cast<uint16_t>(pair);
      if (both) static_cast<uint16_t*>(p_.out)[place + 1] = static_cast<uint16_t>(pair >> 16);
    }
  }

  const Params& p_;
};

}  // namespace lossk::head
