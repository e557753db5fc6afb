// What slices of a product's depth made, added up in order: the epilogue gets what the whole product would have given.
#pragma once
#include "head/gradient/store.cuh"

namespace lossk::head {

// A warp has 16 rows, as a fragment has them: a thread two of them, slots, and pairs of columns 8 apart.
constexpr int kJoinThreads = 128, kJoinRows = 16 * kJoinThreads / kWarp, kJoinColumns = 64;

template <class T>
__global__ void __launch_bounds__(kJoinThreads) join_slices_of(const __grid_constant__ StoreParams p) {
  constexpr int kCount = kJoinColumns / 4;
  const int lane = lane_index(), rows = p.count.of(p.rows), first_row = static_cast<int>(blockIdx.x) * kJoinRows;
  if (first_row >= rows) return;
  const int column = static_cast<int>(blockIdx.y) * kJoinColumns + lane % 4 * 2;
  StoreEpilogue<T, 2> epilogue(p);
#pragma unroll
  for (int slot = 0; slot < 2; ++slot) {
    const int row = first_row + static_cast<int>(threadIdx.x) / kWarp * 16 + lane / 4 + 8 * slot;
    float z[kCount] = {};
    for (int slice = 0; row < rows && slice < p.product.slices; ++slice) {
      const float* from = p.slices + (int64_t{slice} * p.rows + row) * p.columns + column;
#pragma unroll
      for (int i = 0; i < kCount; ++i)
        if (const int c = i / 2 * 8 + i % 2; column + c < p.columns) z[i] += from[c];
    }
    epilogue.template add<kCount>(slot, row, column, [&](int i) -> float& { return z[i]; });
  }
}

}  // namespace lossk::head
