// dlogits of kept logits: the epilogue of the product that would have made them again.
#pragma once
#include "head/gradient/dlogits.cuh"
#include "head/kept/params.h"

namespace lossk::head {

// A warp has 16 rows, as a fragment has them: a thread two of them, slots, and pairs of columns 8 apart.
constexpr int kKeptThreads = 128, kKeptRows = 16 * kKeptThreads / kWarp, kKeptColumns = 64;

// A block of threads for each 64 rows and each span of columns. (One on a multiprocessor at least: without the number
// ptxas spills for more of them on sm_90.)
template <class T, template <class, int> class Epilogue>
__global__ void __launch_bounds__(kKeptThreads, 1) dlogits_of_kept(const __grid_constant__ KeptDlogitsParams p) {
  constexpr int kCount = kKeptColumns / 4;
  const Head& head = p.dlogits.head;
  const int lane = lane_index(), rows = head.rows_there.of(head.rows);
  const int first_row = static_cast<int>(blockIdx.x) * kKeptRows, row = first_row + threadIdx.x / kWarp * 16 + lane / 4;
  // Rows that are not there become zeros up to the next 64, which d weight's product reads.
  if (first_row >= rows) return;
  Epilogue<T, 2> epilogue(p.dlogits);
#pragma unroll
  for (int slot = 0; slot < 2; ++slot) epilogue.begin(slot, row + 8 * slot);
  const int first = static_cast<int>(blockIdx.y) * kKeptSpan, end = min(first + kKeptSpan, head.columns);
  for (int tile = first; tile < end; tile += kKeptColumns) {
    const int column = tile + lane % 4 * 2;
#pragma unroll
    for (int slot = 0; slot < 2; ++slot) {
      float z[kCount] = {};
      const float* from = p.kept.raw + int64_t{row + 8 * slot} * p.kept.stride;
#pragma unroll
      for (int i = 0; i < kCount; i += 2)
        if (const int c = column + i / 2 * 8; row + 8 * slot < rows && c < head.columns)
          z[i] = from[c], z[i + 1] = from[c + 1];
      epilogue.template add<kCount>(slot, row + 8 * slot, column, [&](int i) -> float& { return z[i]; });
    }
  }
#pragma unroll
  for (int slot = 0; slot < 2; ++slot) epilogue.end(slot, row + 8 * slot, blockIdx.y);
}

}  // namespace lossk::head
