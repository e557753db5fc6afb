// Sums of a tile over its rows, for an epilogue that asks for them (kSumsColumns): of weight(slot, row) times what add
// left in a slot's values. column(first_row, column, sum) gets each column's.
#pragma once
#include "device/warp.h"

namespace lossk::head {

using namespace device;

template <class Config>
struct ColumnSums {
  static constexpr int kParts = Config::kRowParts, kColumns = Config::kColumns;
  float parts[kParts][kColumns];
};
template <class Config, class Epilogue>
constexpr int kColumnSumBytes = Epilogue::kSumsColumns ? sizeof(ColumnSums<Config>) : 0;

// Eight lanes of a warp have other rows of the same columns, `count` each in groups of two. In three steps a lane gives
// every other group away and adds up the ones that it keeps: in the end group 8 j + the returned number, for each j.
// (Neighbouring groups to different lanes, for these write them to different banks.)
template <int count, int step = 0, class Z>
LOSSK_DEVICE int share_columns(const Z& z) {
  if constexpr (step == 3) {
    return 0;
  } else {
    constexpr int kOther = kWarp / 2 >> step;
    const bool upper = lane_index() & kOther;
#pragma unroll
    for (int i = 0; i < count / 2; ++i) {
      const int even = i / 2 * 4 + i % 2, odd = even + 2;
      const float give = upper ? z(even) : z(odd), own = upper ? z(odd) : z(even);
      z(i) = own + shuffle_xor(give, kOther);
    }
    return (upper << step) + share_columns<count / 2, step + 1>(z);
  }
}

// By every warp that multiplies, into its part. `column`: of z(slot, 0), in the tile. What z gives is lost.
template <int slots, int count, class Epilogue, class Row, class Z>
LOSSK_DEVICE void sum_rows(Epilogue& epilogue, float* part, int column, const Row& row_of, const Z& z) {
  const float weight = epilogue.weight(0, row_of(0));
#pragma unroll
  for (int i = 0; i < count; ++i) z(0, i) *= weight;
#pragma unroll
  for (int slot = 1; slot < slots; ++slot) {
    const float by = epilogue.weight(slot, row_of(slot));
#pragma unroll
    for (int i = 0; i < count; ++i) z(0, i) += by * z(slot, i);
  }
  const int group = share_columns<count>([&](int i) -> float& { return z(0, i); });
#pragma unroll
  for (int i = 0; i < count / 8; ++i) part[column + 8 * (8 * (i / 2) + group) + i % 2] = z(0, i);
}

// By `threads` of them, when all parts are there. Nobody may begin the next tile's before all these are done.
template <int threads, class Sums, class Epilogue>
LOSSK_DEVICE void sum_parts(Epilogue& epilogue, const Sums& sums, int thread, int first_row, int first_column) {
  for (int c = thread; c < Sums::kColumns; c += threads) {
    float sum = 0;
#pragma unroll
    for (int k = 0; k < Sums::kParts; ++k) sum += sums.parts[k][c];
    epilogue.column(first_row, first_column + c, sum);
  }
}

}  // namespace lossk::head
