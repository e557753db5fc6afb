#pragma once
#include "common/math.h"
#include "device/barrier.h"
#include "device/warp.h"
#include "head/product/matrix.h"
#include "head/rows/narrow.cuh"
#include "head/rows/params.h"

namespace lossk::head {

using namespace device;

constexpr int kRowThreads = 256;

// One block. A thread counts a strip of rows, adds up the strips before it, and writes the ids of its own.
struct CompactShared {
  int counts[kRowThreads];
};
__global__ void __launch_bounds__(kRowThreads) compact_rows(const __grid_constant__ CompactParams p) {
  LOSSK_SHARED(raw);
  auto& shared = *reinterpret_cast<CompactShared*>(raw);
  const int thread = threadIdx.x, strip = ceil_div(p.n, kRowThreads);
  const int64_t first = int64_t{thread} * strip;
  const int begin = static_cast<int>(min(first, int64_t{p.n})),
            end = static_cast<int>(min(first + strip, int64_t{p.n}));
  int count = 0;
  for (int i = begin; i < end; ++i) count += p.active[i];
  shared.counts[thread] = count;
  sync_block();
  int place = 0, total = 0;
  for (int t = 0; t < kRowThreads; ++t) {
    if (t == thread) place = total;
    total += shared.counts[t];
  }
  for (int i = begin; i < end; ++i)
    if (p.active[i]) p.ids[place++] = i;
  for (int i = total + thread; i < p.n; i += kRowThreads) p.ids[i] = 0;
  if (thread == 0) *p.count = total;
}

// A warp for each row. Bf16 stands for any 16 bits; Fp16 for those that are multiplied.
template <class T>
__global__ void __launch_bounds__(kRowThreads) gather_rows(const __grid_constant__ GatherParams p) {
  using Bits = std::conditional_t<Planes<T>::planes == 1, uint16_t, float>;
  const int64_t row = int64_t{blockIdx.x} * (kRowThreads / kWarp) + threadIdx.x / kWarp;
  const int rows = p.count.of(p.rows);
  if (row >= min(p.rows, round_up(rows, 64))) return;
  const bool there = row < rows;
  const auto* from = static_cast<const Bits*>(p.from) + (there ? (p.ids ? p.ids[row] : row) * p.row_stride : 0);
  auto* to = static_cast<uint16_t*>(p.to) + row * p.to_columns;
  const int64_t plane = int64_t{p.rows} * p.to_columns;
  const bool aligned = reinterpret_cast<uintptr_t>(from) % 16 == 0;
  for (int column = lane_index() * 8; column < p.to_columns; column += kWarp * 8) {
    const int count = there ? min(8, p.columns - column) : 0;
    uint16_t bits[Planes<T>::planes][8] = {};
    if constexpr (Planes<T>::planes == 1) {
      if (count == 8 && aligned) {
        const Eight x = *reinterpret_cast<const Eight*>(from + column);
        memcpy(bits, &x, sizeof x);
      } else {
        for (int i = 0; i < count; ++i) bits[0][i] = from[column + i];
      }
      if constexpr (std::is_same_v<T, Fp16>)
        for (int i = 0; i < count; ++i)
          bits[0][i] = static_cast<uint16_t>(pack<T>(p.times[row] * widen<T>(bits[0][i]), 0));
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        uint16_t parts[3];
        split(i < count ? from[column + i] : 0, parts);
        for (int k = 0; k < 3; ++k) bits[k][i] = parts[k];
      }
    }
    for (int k = 0; k < Planes<T>::planes; ++k) {
      Eight x;
      memcpy(&x, bits[k], sizeof x);
      *reinterpret_cast<Eight*>(to + k * plane + column) = x;
    }
  }
}

// A thread for each entry: its place is how many come before it, equal ones in the caller's order.
__global__ void __launch_bounds__(kRowThreads) sort_row_picks(const __grid_constant__ SortPicksParams p) {
  const int64_t i = int64_t{blockIdx.x} * kRowThreads + threadIdx.x, row = i / p.k;
  if (row >= p.n) return;
  const int entry = static_cast<int>(i % p.k);
  const int64_t* index = p.index + row * p.k;
  const auto column_of = [&](int k) {
    return index[k] >= 0 && index[k] < p.v ? static_cast<int>(index[k]) : kNoColumn;
  };
  const int own = column_of(entry);
  int place = 0;
  for (int k = 0; k < p.k; ++k) {
    const int other = column_of(k);
    place += other < own || (other == own && k < entry);
  }
  p.column[row * p.k + place] = own;
  p.entry[row * p.k + place] = entry;
}

}  // namespace lossk::head
