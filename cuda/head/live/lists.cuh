// Lists of columns: counted chunk by chunk, then each chunk writes its own behind those before it.
#pragma once
#include "common/math.h"
#include "device/grid.h"
#include "device/math.h"
#include "device/reduce.h"
#include "head/live/params.h"

namespace lossk::head {

using namespace device;

constexpr int kListThreads = 256, kEach = kChunk / kListThreads;  // columns a thread, neighbours

__global__ void __launch_bounds__(kListThreads) mark_rows(const __grid_constant__ MarkParams p) {
  const int k = p.head.picks.count;
  const int64_t i = int64_t{blockIdx.x} * kListThreads + threadIdx.x, line = i / k;
  if (line >= p.head.rows_there.of(p.head.rows)) return;
  const int64_t v = p.index[p.head.id(static_cast<int>(line)) * k + i % k];
  if (v >= 0 && v < p.head.columns) atomic_max(&p.picked[line / kListRows * p.head.columns + v], 1);
}

__global__ void __launch_bounds__(kListThreads) mark_some(const __grid_constant__ SampleParams p) {
  const int64_t i = int64_t{blockIdx.x} * kListThreads + threadIdx.x;
  const int k = p.head.picks.count;
  const int64_t all = int64_t{p.head.rows_there.of(p.head.rows)} * k, some = all < p.most ? all : p.most;
  if (i >= some) return;
  const int64_t place = i * all / some;
  const int64_t v = p.index[p.head.id(static_cast<int>(place / k)) * k + place % k];
  if (v >= 0 && v < p.head.columns) atomic_max(&p.picked[v], 1);
}

__global__ void __launch_bounds__(kListThreads) any_general(const __grid_constant__ GeneralParams p) {
  const int64_t line = int64_t{blockIdx.x} * kListThreads + threadIdx.x;
  if (line >= p.head.rows_there.of(p.head.rows)) return;
  bool any = false;
  for (int k = 1; k < 5; ++k) any = any || p.coefs.row[int64_t{k} * p.coefs.n + p.head.id(static_cast<int>(line))] != 0;
  if (any) atomic_max(p.general, 1);
}

// Is a column in a list?
struct InSample {
  SampleListParams p;
  LOSSK_DEVICE bool operator()(int list, int v) const {
    if (p.picked[v]) return list == 0;
    const int64_t i = (int64_t{v} * p.most + p.v - 1) / p.v;  // the i-th of the sample is at i v / most
    return i * p.v / p.most == v && list == 1 + i % 2;
  }
};

struct InLive {
  const uint32_t* picked;
  const uint16_t* sketch;
  int v, blocks;
  float tau;

  LOSSK_DEVICE static float tau_of(float tau, const uint32_t* general) {
    // Entropy and its like decay more slowly in the dead columns.
    return general && *general ? fminf(tau, 1.f / 4096) : tau;
  }
  LOSSK_DEVICE float mass(int block, int column) const { return widen_bf16(sketch[int64_t{block} * v + column]); }
  LOSSK_DEVICE bool operator()(int list, int column) const {
    bool live = picked && picked[int64_t{list} * v + column];
    for (int b = list * kListBlocks; b < min((list + 1) * kListBlocks, blocks); ++b)
      live = live || !(mass(b, column) < tau);  // nan is live
    return live;
  }
};

constexpr double kDense = 0.7;  // where more is live than this, all is: gathering then costs more than it saves

LOSSK_DEVICE bool dense(int count, int v) { return count > kDense * v; }

// One block of threads for each chunk of each list.
template <class In>
LOSSK_DEVICE void count_chunk(const In& in, int v, int* counts) {
  LOSSK_SHARED(raw);
  const int list = blockIdx.y, first = static_cast<int>(blockIdx.x) * kChunk + threadIdx.x * kEach;
  int count = 0;
  for (int c = first; c < min(first + kEach, v); ++c) count += in(list, c);
  count = block_reduce(count, Sum(), reinterpret_cast<int*>(raw));
  if (threadIdx.x == 0) counts[list * gridDim.x + blockIdx.x] = count;
}

struct ListShared {
  int scratch[kListThreads / kWarp], before[kListThreads];
};

// May all columns be listed, if there are many?
template <bool may_be_dense, class In>
LOSSK_DEVICE bool write_chunk(const In& in, int v, const int* counts, const Lists& lists) {
  LOSSK_SHARED(raw);
  auto& shared = *reinterpret_cast<ListShared*>(raw);
  const int list = blockIdx.y, thread = threadIdx.x;
  const int chunk = blockIdx.x, chunks = gridDim.x, first = chunk * kChunk + thread * kEach;
  int before = 0, all = 0;
  for (int c = thread; c < chunks; c += kListThreads) {
    const int count = counts[list * chunks + c];
    before += c < chunk ? count : 0;
    all += count;
  }
  before = block_reduce(before, Sum(), shared.scratch);
  all = block_reduce(all, Sum(), shared.scratch);
  const bool whole = may_be_dense && dense(all, v);
  if (chunk == 0 && thread == 0) lists.count[list] = whole ? v : all;

  uint32_t own = 0;
  for (int i = 0; i < kEach && first + i < v; ++i) own |= uint32_t{whole || in(list, first + i)} << i;
  int count = 0;
  for (int i = 0; i < kEach; ++i) count += own >> i & 1;
  shared.before[thread] = count;
  sync_block();
  int place = whole ? chunk * kChunk : before;
  for (int t = 0; t < thread; ++t) place += shared.before[t];
  int* ids = lists.ids + int64_t{list} * v;
  for (int i = 0; i < kEach; ++i)
    if (own >> i & 1) ids[place++] = first + i;
  return whole;
}

__global__ void __launch_bounds__(kListThreads) count_sample(const __grid_constant__ SampleListParams p) {
  count_chunk(InSample{p}, p.v, p.counts);
}
__global__ void __launch_bounds__(kListThreads) write_sample(const __grid_constant__ SampleListParams p) {
  write_chunk<false>(InSample{p}, p.v, p.counts, p.lists);
}

LOSSK_DEVICE int blocks_there(const Head& head) { return ceil_div(head.rows_there.of(head.rows), kSketchRows); }

LOSSK_DEVICE InLive in_live(const LiveListParams& p) {
  return {p.picked, p.sketch, p.head.columns, blocks_there(p.head), InLive::tau_of(p.tau, p.general)};
}

__global__ void __launch_bounds__(kListThreads) count_live(const __grid_constant__ LiveListParams p) {
  count_chunk(in_live(p), p.head.columns, p.counts);
}

// And the sums of each block over the chunk's dead columns.
__global__ void __launch_bounds__(kListThreads) write_live(const __grid_constant__ LiveListParams p) {
  LOSSK_SHARED(raw);
  const int list = blockIdx.y, v = p.head.columns, blocks = blocks_there(p.head);
  const InLive in = in_live(p);
  const bool whole = write_chunk<true>(in, v, p.counts, p.lists);
  sync_block();
  auto& scratch = *reinterpret_cast<float (*)[kListThreads / kWarp]>(raw);
  const int all_blocks = ceil_div(p.head.rows, kSketchRows), chunks = gridDim.x;
  for (int b = list * kListBlocks; b < min((list + 1) * kListBlocks, blocks); ++b) {
    float mass = 0, square = 0, bias = 0;
    for (int i = threadIdx.x; i < kChunk && !whole; i += kListThreads) {
      const int c = static_cast<int>(blockIdx.x) * kChunk + i;
      if (c >= v || in(list, c)) continue;
      const float q = in.mass(b, c);
      mass += q, square += q * q;
      if (p.head.bias) bias += q * p.head.bias[c];
    }
    const float sums[] = {
        block_reduce(mass, Sum(), scratch), block_reduce(square, Sum(), scratch), block_reduce(bias, Sum(), scratch)};
    if (threadIdx.x == 0)
      for (int k = 0; k < 3; ++k) p.sums[(int64_t{k} * all_blocks + b) * chunks + blockIdx.x] = sums[k];
  }
}

// A thread for each column.
__global__ void __launch_bounds__(kListThreads) first_lists(const __grid_constant__ LiveListParams p, int* first) {
  const int v = static_cast<int>(blockIdx.x) * kListThreads + threadIdx.x, lists = ceil_div(p.head.rows, kListRows);
  if (v >= p.head.columns) return;
  const InLive in = in_live(p);
  int number = kNoList;
  for (int list = lists - 1; list >= 0 && number > 0; --list)
    number = p.lists.count[list] == p.head.columns ? 0 : in(list, v) ? list + 1 : number;
  first[v] = number;
}

// A thread for each row.
__global__ void __launch_bounds__(kListThreads) split_rows(const __grid_constant__ DenseRowsParams p) {
  const int line = static_cast<int>(blockIdx.x) * kListThreads + threadIdx.x, list = line / kListRows;
  if (line >= p.head.rows) return;
  const int rows = p.head.rows_there.of(p.head.rows);
  const auto rows_of = [&](int l) { return max(min(rows - l * kListRows, kListRows), 0); };
  const auto whole = [&](int l) { return p.lists.count[l] == p.head.columns; };
  int before = 0;
  for (int l = 0; l < list; ++l) before += whole(l) ? rows_of(l) : 0;
  const bool own = whole(list);
  if (own && line < rows) {
    const int place = before + line % kListRows;
    p.lines[place] = line, p.ids[place] = static_cast<int>(p.head.id(line));
  }
  if (line % kListRows == 0) {
    p.columns_left[list] = own ? 0 : p.lists.count[list];
    p.rows_left[list] = own ? 0 : rows_of(list);
  }
  if (line == p.head.rows - 1) {
    const int count = before + (own ? rows_of(list) : 0);
    *p.count = count, *p.columns = count > 0 ? p.head.columns : 0;
  }
}

// A thread for each block of rows adds the chunks up.
__global__ void __launch_bounds__(kListThreads) sum_chunks(const __grid_constant__ LiveListParams p) {
  const int all_blocks = ceil_div(p.head.rows, kSketchRows), chunks = ceil_div(p.head.columns, kChunk);
  const int b = static_cast<int>(blockIdx.x) * kListThreads + threadIdx.x;
  if (b >= all_blocks) return;
  double sums[3] = {};
  for (int k = 0; k < 3 && b < blocks_there(p.head); ++k)
    for (int c = 0; c < chunks; ++c) sums[k] += p.sums[(int64_t{k} * all_blocks + b) * chunks + c];
  p.mass[b] = sums[0], p.square[b] = sums[1], p.bias[b] = sums[2];
}

}  // namespace lossk::head
