// Reductions in a fixed order, so that a sum is the same in every run.
#pragma once
#include "device/barrier.h"
#include "device/warp.h"

namespace lossk::device {

struct Sum {
  template <class T>
  LOSSK_DEVICE T operator()(T a, T b) const {
    return a + b;
  }
};
struct Max {
  template <class T>
  LOSSK_DEVICE T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};

// Over `lanes` neighbours (a power of two); every one gets it. T of 4 bytes.
template <int lanes = kWarp, class T, class Op>
LOSSK_DEVICE T warp_reduce(T x, Op op) {
  static_assert(lanes >= 1 && lanes <= kWarp && (lanes & (lanes - 1)) == 0);
#pragma unroll
  for (int step = 1; step < lanes; step *= 2) x = op(x, shuffle_xor(x, step));
  return x;
}

// Over the block of whole warps; every thread gets it. `scratch`: shared, one T for each warp; free again at the end.
template <class T, class Op>
LOSSK_DEVICE T block_reduce(T x, Op op, T* scratch) {
  const int warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  x = warp_reduce(x, op);
  if (lane_index() == 0) scratch[warp] = x;
  sync_block();
  x = scratch[0];
  for (int w = 1; w < warps; ++w) x = op(x, scratch[w]);
  sync_block();
  return x;
}

}  // namespace lossk::device
