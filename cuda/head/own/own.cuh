// A warp for each row: the products' gradient less the row's own term, rounded once.
#pragma once
#include "device/reduce.h"
#include "head/own/params.h"
#include "head/rows/narrow.cuh"

namespace lossk::head {

using namespace device;

constexpr int kOwnThreads = 256, kOwnRows = kOwnThreads / kWarp;

template <class T>
LOSSK_DEVICE float point_at(const Matrix& m, int64_t row, int column) {
  float x = 0;
  for (int k = Planes<T>::planes - 1; k >= 0; --k)
    x += widen<T>(static_cast<const uint16_t*>(m.data)[k * m.plane + row * m.stride + column]);
  return x;
}

template <class T>
__global__ void __launch_bounds__(kOwnThreads) own_of_rows(const __grid_constant__ OwnParams p) {
  const int row = static_cast<int>(blockIdx.x) * kOwnRows + static_cast<int>(threadIdx.x) / kWarp;
  if (row >= p.count.of(p.rows)) return;
  const float* sum = p.sum + int64_t{row} * p.columns;
  float by = 0;
  bool lost = false;
  if (p.distance == Distance::cosine) {
    float along = 0, square = 0;
    for (int c = lane_index(); c < p.columns; c += kWarp) {
      const float x = point_at<T>(p.points, row, c);
      along += sum[c] * x, square += x * x;
    }
    along = warp_reduce(along, Sum()), square = warp_reduce(square, Sum());
    lost = square == 0;
    by = along / square;
  } else {
    by = p.of[row];
  }
  const int64_t line = (p.ids ? p.ids[row] : row) * int64_t{p.columns};
  for (int c = lane_index(); c < p.columns; c += kWarp) {
    const float x = lost ? 0 : sum[c] - by * point_at<T>(p.points, row, c);
    if (std::is_same_v<T, float> || p.wide) static_cast<float*>(p.out)[line + c] = x;
    else static_cast<uint16_t*>(p.out)[line + c] = static_cast<uint16_t>(pack<T>(x, 0));
  }
}

}  // namespace lossk::head
