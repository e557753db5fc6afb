// A head of some columns: what belongs to each, and the rows' picks among them.
#pragma once
#include "head/live/params.h"

namespace lossk::head {

constexpr int kColumnThreads = 256;

__global__ void __launch_bounds__(kColumnThreads) gather_floats(const __grid_constant__ ColumnParams p) {
  const int j = static_cast<int>(blockIdx.x) * kColumnThreads + threadIdx.x;
  if (j >= p.count.of(p.most)) return;
  if (p.bias) p.to_bias[j] = p.bias[p.ids[j]];
  if (p.aux) p.to_aux[j] = p.aux[p.ids[j]];
}

// A thread for each row.
__global__ void __launch_bounds__(kColumnThreads) map_row_picks(const __grid_constant__ MapPicksParams p) {
  const int line = static_cast<int>(blockIdx.x) * kColumnThreads + threadIdx.x;
  if (line >= p.head.rows_there.of(p.head.rows)) return;
  const int k = p.head.picks.count;
  const int64_t row = p.head.id(line) * k;
  int place = 0;
  for (int i = 0; i < k; ++i) {
    const int column = p.head.picks.column[row + i];
    int low = 0, high = *p.count;
    while (low < high) {
      const int middle = (low + high) / 2;
      if (p.ids[middle] < column) low = middle + 1;
      else high = middle;
    }
    if (low == *p.count || p.ids[low] != column) continue;
    p.column[row + place] = low;
    p.entry[row + place++] = p.head.picks.entry[row + i];
  }
  for (; place < k; ++place) p.column[row + place] = kNoColumn;
}

}  // namespace lossk::head
