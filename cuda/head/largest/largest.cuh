// The largest logits of a row, by the warp that reads them.
#pragma once
#include <cstring>

#include "device/barrier.h"
#include "head/largest/params.h"
#include "head/logit_line.cuh"
#include "head/stats/parts.cuh"
#include "head/stats/stats.cuh"

namespace lossk::head {

LOSSK_DEVICE Key key_of(float z, int column) {
  uint32_t bits;
  z += 0.f;  // -0 is 0
  memcpy(&bits, &z, 4);
  bits = z != z ? ~0u : bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return Key{bits} << 32 | static_cast<uint32_t>(~column);
}
LOSSK_DEVICE int column_of(Key key) { return static_cast<int>(~static_cast<uint32_t>(key)); }
LOSSK_DEVICE float logit_of(Key key) {
  uint32_t bits = static_cast<uint32_t>(key >> 32);
  bits = bits & 0x80000000u ? bits & 0x7fffffffu : ~bits;
  float z;
  memcpy(&z, &bits, 4);
  return z;
}

LOSSK_DEVICE Key shuffle_key(Key key, int lanes) {
  const uint32_t high = shuffle_xor(static_cast<uint32_t>(key >> 32), lanes);
  return Key{high} << 32 | shuffle_xor(static_cast<uint32_t>(key), lanes);
}

// A segment's share of lse, from every lane's.
LOSSK_DEVICE void write_partial(RowLse lse, Partial* to) {
#pragma unroll
  for (int lanes = 1; lanes < kWarp; lanes *= 2) lse.merge({shuffle_xor(lse.max, lanes), shuffle_xor(lse.sum, lanes)});
  if (lane_index() == 0) *to = lse.partial();
}

// A row's keys: the best, then candidates, of which there are some behind them.
constexpr int kKeys = 2 * kMostLargest;

// A warp's, in shared memory. By all its lanes.
class Largest {
 public:
  LOSSK_DEVICE Largest(Key* keys, int k, const Key* before) : keys_(keys), k_(k) {
    for (int i = lane_index(); i < kKeys; i += kWarp) keys_[i] = before && i < k ? before[i] : 0;
    sync_warp();
    least_ = keys_[k - 1];
  }

  LOSSK_DEVICE void add(const Key (&keys)[4]) {
    bool any = false;
#pragma unroll
    for (int i = 0; i < 4; ++i) any = any || keys[i] > least_;
    if (warp_ballot(any) == 0) return;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t found = warp_ballot(keys[i] > least_);
      const int place = kMostLargest + found_ + count_bits(found & ((1u << lane_index()) - 1));
      if (keys[i] > least_) keys_[place] = keys[i];
      found_ += count_bits(found);
      if (found_ > kMostLargest - kWarp) merge();
    }
  }

  LOSSK_DEVICE void write(Key* to) {
    merge();
    for (int i = lane_index(); i < k_; i += kWarp) to[i] = keys_[i];
  }

 private:
  // Bitonic, descending: the best come first again.
  LOSSK_DEVICE void merge() {
    sync_warp();
    if (found_ == 0) return;
    for (int size = 2; size <= kKeys; size *= 2)
      for (int step = size / 2; step > 0; step /= 2) {
        for (int pair = lane_index(); pair < kKeys / 2; pair += kWarp) {
          const int i = 2 * pair - (pair & (step - 1));
          const Key a = keys_[i], b = keys_[i + step];
          if ((a < b) == ((i & size) == 0)) keys_[i] = b, keys_[i + step] = a;
        }
        sync_warp();
      }
    for (int i = kMostLargest + lane_index(); i < kKeys; i += kWarp) keys_[i] = 0;
    found_ = 0;
    least_ = keys_[k_ - 1];
    sync_warp();
  }

  Key* keys_;
  const int k_;
  int found_ = 0;
  Key least_;  // a key has to be larger
};

struct LargestShared {
  Key keys[kLines][kKeys];
};
__global__ void __launch_bounds__(kLineThreads) largest_of_rows(const __grid_constant__ LargestParams p) {
  LOSSK_SHARED(raw);
  const LogitsRead& r = p.logits;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, line = static_cast<int>(blockIdx.x) * kLines + warp;
  if (line >= r.head.rows_there.of(r.head.rows)) return;
  const LogitLine logits(r.head, r.raw, r.stride, line);
  const int64_t row = int64_t{r.head.first_row} + line;
  Key* best = p.best + row * p.k;
  Largest found(reinterpret_cast<LargestShared*>(raw)->keys[warp], p.k, r.head.first > 0 ? best : nullptr);
  for (int first = 0; first < r.head.columns; first += r.segment) {
    const int end = min(first + r.segment, r.head.columns);
    RowLse lse;
    for (int begin = first; begin < end; begin += kLineColumns) {  // all lanes take part in every step
      const int column = begin + 4 * lane_index();
      Four z = logits.logits(column);
      Key keys[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) keys[i] = column + i < end ? key_of(z.x[i], r.head.first + column + i) : 0;
      found.add(keys);
      lse.add<4>([&](int i) -> float& { return z.x[i]; }, [](int, float) {});
    }
    write_partial(lse, r.partial + int64_t{(r.head.first + first) / r.segment} * r.n + row);
  }
  found.write(best);
}

// A thread for each entry.
__global__ void __launch_bounds__(kLineThreads) write_keys(const __grid_constant__ WriteLargestParams p) {
  const int64_t i = int64_t{blockIdx.x} * kLineThreads + threadIdx.x, line = i / p.k;
  if (line >= p.head.rows_there.of(p.head.rows)) return;
  const int64_t to = p.head.id(static_cast<int>(line)) * p.k + i % p.k;
  p.values[to] = logit_of(p.best[i]);
  p.indices[to] = column_of(p.best[i]);
}

// A warp for each segment of a row.
__global__ void __launch_bounds__(kLineThreads) sample_segments(const __grid_constant__ DrawParams p) {
  const LogitsRead& r = p.logits;
  const int line = static_cast<int>(blockIdx.x) * kLines + static_cast<int>(threadIdx.x) / kWarp;
  if (line >= r.head.rows_there.of(r.head.rows)) return;
  const LogitLine logits(r.head, r.raw, r.stride, line);
  const int first = static_cast<int>(blockIdx.y) * r.segment, end = min(first + r.segment, r.head.columns);
  const auto seed = static_cast<uint64_t>(*p.seed);
  RowLse lse;
  Sampled best{};
  for (int column = first + 4 * lane_index(); column < end; column += kLineColumns) {
    Four z = logits.logits(column);
    const Gumbel4 noise = gumbel_of(seed, logits.row().id, (r.head.first + column) / 4);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const Key key = column + i < end ? key_of(z.x[i] + noise.x[i], r.head.first + column + i) : 0;
      if (key > best.key) best = {key, z.x[i], 0};
    }
    lse.add<4>([&](int i) -> float& { return z.x[i]; }, [](int, float) {});
  }
#pragma unroll
  for (int lanes = 1; lanes < kWarp; lanes *= 2) {
    const Key key = shuffle_key(best.key, lanes);
    const float z = shuffle_xor(best.z, lanes);
    if (key > best.key) best = {key, z, 0};
  }
  const int64_t place = int64_t{(r.head.first + first) / r.segment} * r.n + r.head.first_row + line;
  write_partial(lse, r.partial + place);
  if (lane_index() == 0) p.sampled[place] = best;
}

// lse of some of a row's columns, and the draw among them.
template <class Number>
struct SampledOf {
  RowState<Number, int> all;
  Sampled best{};

  template <class Row>
  LOSSK_DEVICE void merge(const Row& other) {
    all.merge(other.all);
    if (other.best.key > best.key) best = other.best;
  }
};
using SampledPart = SampledOf<float>;
using SampledRow = SampledOf<double>;

__global__ void __launch_bounds__(kMergeThreads) merge_rows_sampled(const __grid_constant__ MergeSampledParams p) {
  LOSSK_SHARED(raw);
  const int64_t row = int64_t{blockIdx.x} * kMergeRows + lane_index();
  const auto of_part = [&](int part) {
    const int64_t at = int64_t{part} * p.n + row;
    return SampledPart{state_of(p.partial[at]), p.sampled[at]};
  };
  const auto s = merge_parts(p.segments, row < p.n, of_part, *reinterpret_cast<MergeShared<SampledRow>*>(raw));
  if (row >= p.n || threadIdx.x >= kMergeRows) return;
  p.token[row] = column_of(s.best.key);
  p.logp[row] = static_cast<float>(s.best.z - s.all.lse());
}

}  // namespace lossk::head
