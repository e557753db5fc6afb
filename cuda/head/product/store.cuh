// Epilogues that write a product: rounded, or on top of what was there.
#pragma once
#include "device/math.h"

namespace lossk::head {

using namespace device;

// Two neighbours of the 16-bit type T.
template <class T>
LOSSK_DEVICE uint32_t pack(float low, float high);
template <>
LOSSK_DEVICE uint32_t pack<Bf16>(float low, float high) {
  return pack_bf16(low, high);
}
template <>
LOSSK_DEVICE uint32_t pack<Fp16>(float low, float high) {
  return pack_fp16(low, high);
}

struct StoreParams {
  void* out;          // [rows, columns] of T
  float* sum;         // the same shape; not looked at where first and last
  int rows, columns;  // columns a multiple of 2
  bool first, last;   // of the products that are summed: nothing is there yet; round the sum
};

template <class T, int slots>
class StoreEpilogue {
 public:
  using Params = StoreParams;
  LOSSK_DEVICE explicit StoreEpilogue(const Params& p) : p_(p) {}

  LOSSK_DEVICE void begin(int, int) {}

  template <int count, class Sums>
  LOSSK_DEVICE void add(int, int row, int column, const Sums& z) {
    if (row >= p_.rows) return;
#pragma unroll
    for (int i = 0; i < count; i += 2) {
      const int c = column + i / 2 * 8;
      if (c >= p_.columns) continue;
      const int64_t place = int64_t{row} * p_.columns + c;
      float low = z(i), high = z(i + 1);
      if (!p_.first) {
        low += p_.sum[place];
        high += p_.sum[place + 1];
      }
      if (p_.last) {
        static_cast<uint32_t*>(p_.out)[place / 2] = pack<T>(low, high);
      } else {
        p_.sum[place] = low;
        p_.sum[place + 1] = high;
      }
    }
  }

  LOSSK_DEVICE void end(int, int, int) {}

 private:
  const Params& p_;
};

}  // namespace lossk::head
