// A sum in double over a block, whatever its size in the same order.
#pragma once
#include "device/barrier.h"

namespace lossk::head {

using namespace device;

template <int threads>
struct SumShared {
  double parts[threads];
};

// Every thread's x, added up in the threads' order; the first thread has it.
template <int threads>
LOSSK_DEVICE double sum_block(double x, SumShared<threads>& shared) {
  shared.parts[threadIdx.x] = x;
  sync_block();
  if (threadIdx.x == 0)
    for (int i = 1; i < threads; ++i) x += shared.parts[i];
  return x;
}

}  // namespace lossk::head
