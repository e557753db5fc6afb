// What segments of the vocabulary left of a row, merged.
#pragma once
#include "common/math.h"
#include "device/barrier.h"
#include "device/warp.h"

namespace lossk::head {

using namespace device;

constexpr int kMergeWarps = 8, kMergeRows = kWarp, kMergeThreads = kMergeWarps * kMergeRows;

template <class State>
struct MergeShared {
  State shares[kMergeWarps][kMergeRows];
};

// A lane for each row: every warp merges its share of the rows' parts, of_part(part) of this one, in order; the first
// warp, which alone has the result, merges the shares in order. One thread for all of a row's parts would wait for
// memory, and for two exponentials in double, 128 times.
template <class State, class F>
LOSSK_DEVICE State merge_parts(int parts, bool there, const F& of_part, MergeShared<State>& shared) {
  const int lane = lane_index(), warp = threadIdx.x / kWarp, share = ceil_div(parts, kMergeWarps);
  State s;
  for (int part = warp * share; there && part < min((warp + 1) * share, parts); ++part) s.merge(of_part(part));
  shared.shares[warp][lane] = s;
  sync_block();
  for (int other = 1; warp == 0 && other < kMergeWarps; ++other) s.merge(shared.shares[other][lane]);
  return s;
}

}  // namespace lossk::head
