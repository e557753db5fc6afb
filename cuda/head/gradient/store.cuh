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
  static constexpr bool kManyRegisters = false, kSumsColumns = false;
  LOSSK_DEVICE explicit StoreEpilogue(const Params& p) : p_(p) {}

  LOSSK_DEVICE void begin(int, int) {}

  template <int count, class Sums>
  LOSSK_DEVICE void add(int, int row, int column, const Sums& z) {
    const bool there = row < p_.count.of(p_.rows);
    const float back = there && p_.unit ? 1 / p_.unit[p_.unit_by_row ? row : 0] : 1;
    const int64_t own = int64_t{row} * p_.columns;
    const int64_t line = there && p_.ids ? int64_t{p_.ids[row]} * p_.columns : own;
    const int64_t sums = p_.sum_by_ids ? line : own;
    if (!p_.first || !p_.last || kWide || p_.wide) {
#pragma unroll
      for (int i = 0; i < count; i += 2) {
        const int c = column + i / 2 * 8, columns = p_.columns - c;
        if (!there || columns <= 0) continue;
        z(i) *= back, z(i + 1) *= back;
        if (!p_.first) {
          const Two before = read(p_.sum + sums + c, columns);
          z(i) += before.x, z(i + 1) += before.y;
        }
        if (!p_.last) write(p_.sum + sums + c, {z(i), z(i + 1)}, columns);
        else if (kWide || p_.wide) write(static_cast<float*>(p_.out) + line + c, {z(i), z(i + 1)}, columns);
      }
    } else {
#pragma unroll
      for (int i = 0; i < count; ++i) z(i) *= back;
    }
    if (!p_.last || kWide || p_.wide) return;
    const int lane = lane_index() % 4;
#pragma unroll
    for (int group = 0; group < count / 2; group += 4) {
      Eight x;
#pragma unroll
      for (int k = 0; k < 4; ++k) x.pairs[k] = pack<T>(z(2 * (group + k)), z(2 * (group + k) + 1));
      gather_group(x);
      const int first = column - 2 * lane + 8 * (group + lane);
      if (there && first < p_.columns) write(static_cast<uint16_t*>(p_.out) + line + first, x, p_.columns - first);
    }
  }

  LOSSK_DEVICE void end(int, int, int) {}

 private:
  static constexpr bool kWide = std::is_same_v<T, float>;

  struct alignas(8) Two {
    float x, y;
  };
  // At an even column, `columns` of them from there to the row's end. Rows of an odd length do not keep alignment.
  LOSSK_DEVICE Two read(const float* from, int columns) const {
    if (p_.columns % 2 == 0) return *reinterpret_cast<const Two*>(from);
    return {from[0], columns > 1 ? from[1] : 0};
  }
  LOSSK_DEVICE void write(float* to, const Two& x, int columns) const {
    if (p_.columns % 2 == 0) {
      *reinterpret_cast<Two*>(to) = x;
      return;
    }
    to[0] = x.x;
    if (columns > 1) to[1] = x.y;
  }
  LOSSK_DEVICE void write(uint16_t* to, const Eight& x, int columns) const {
    if (p_.columns % 8 == 0) {
      *reinterpret_cast<Eight*>(to) = x;
      return;
    }
#pragma unroll
    for (int i = 0; i < 8; ++i)
      if (i < columns) to[i] = static_cast<uint16_t>(x.pairs[i / 2] >> 16 * (i % 2));
  }

  const Params& p_;
};

}  // namespace lossk::head
