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
  static constexpr bool kManyRegisters = false, kSumsColumns = false, kSliced = true;
  LOSSK_DEVICE explicit StoreEpilogue(const Params& p) : p_(p) {}

  LOSSK_DEVICE void of_slice(int slice) { slice_ = int64_t{slice} * p_.rows * p_.columns; }  // in sum
  LOSSK_DEVICE void begin(int, int) {}

  template <int count, class Sums>
  LOSSK_DEVICE void add(int, int row, int column, const Sums& z) {
    const bool there = row < p_.count.of(p_.rows);
    const float back = there && p_.unit ? 1 / p_.unit[p_.unit_by_row ? row : 0] : 1;
    const int64_t own = int64_t{row} * p_.columns;
    const int id = there && p_.ids ? p_.ids[row] : row;
    const bool before = !p_.first && there && (!p_.first_of || p_.first_of[id] < p_.number);
    const int64_t line = int64_t{id} * p_.columns;
    const int64_t sums = slice_ + (p_.sum_by_ids ? line : own);
    const int columns = there ? p_.columns - column : 0;  // from this thread's first on
#pragma unroll
    for (int i = 0; i < count; ++i) z(i) *= back;
    if (p_.columns % 2 == 0) floats<count, true>(sums, line, column, columns, before, z);
    else floats<count, false>(sums, line, column, columns, before, z);
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

  // What is read and written as float32. `even`: rows of an even length, whose pairs are aligned.
  template <int count, bool even, class Sums>
  LOSSK_DEVICE void floats(int64_t sums, int64_t line, int column, int columns, bool before, const Sums& z) const {
    if (before) add_before<count, even>(p_.sum + sums + column, columns, z);
    if (!p_.last) write_floats<count, even>(p_.sum + sums + column, columns, z);
    else if (kWide || p_.wide) write_floats<count, even>(static_cast<float*>(p_.out) + line + column, columns, z);
  }

  struct alignas(8) Two {
    float x, y;
  };
  // Loads together, for one after the other each would take as long as all: memory is half a thousand clocks away.
  template <int count, bool even, class Sums>
  LOSSK_DEVICE static void add_before(const float* from, int columns, const Sums& z) {
    constexpr int kTogether = count < 32 ? count : 32;
#pragma unroll
    for (int first = 0; first < count; first += kTogether) {
      Two before[kTogether / 2] = {};
#pragma unroll
      for (int k = 0; k < kTogether / 2; ++k) {
        const int c = (first / 2 + k) * 8;
        if constexpr (even) {
          if (c < columns) before[k] = *reinterpret_cast<const Two*>(from + c);
        } else {
          if (c < columns) before[k].x = from[c];
          if (c + 1 < columns) before[k].y = from[c + 1];
        }
      }
#pragma unroll
      for (int k = 0; k < kTogether / 2; ++k) z(first + 2 * k) += before[k].x, z(first + 2 * k + 1) += before[k].y;
    }
  }
  template <int count, bool even, class Sums>
  LOSSK_DEVICE static void write_floats(float* to, int columns, const Sums& z) {
#pragma unroll
    for (int i = 0; i < count; i += 2) {
      const int c = i / 2 * 8;
      if constexpr (even) {
        if (c < columns) *reinterpret_cast<Two*>(to + c) = {z(i), z(i + 1)};
      } else {
        if (c < columns) to[c] = z(i);
        if (c + 1 < columns) to[c + 1] = z(i + 1);
      }
    }
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
  int64_t slice_ = 0;
};

}  // namespace lossk::head
