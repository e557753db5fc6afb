// What the lists leave out: the sum of each row's missing gradient, and the rank-one terms that stand for it.
#pragma once
#include "device/reduce.h"
#include "head/live/lists.cuh"
#include "head/rows/narrow.cuh"
#include "head/stats/sum.cuh"

namespace lossk::head {

constexpr int kFillThreads = 256;

// What float16 wants (units): q of a block, a mass of at most 128 and often near 0, times 256; other factors so that
// the largest is this.
constexpr float kMassUnit = 256, kLargestFactor = 1 << 14;
constexpr float kMostQ = 128;  // where a column multiplies it: float16 holds 256 times that
template <class T>
LOSSK_DEVICE constexpr float mass_unit() {
  return std::is_same_v<T, Fp16> ? kMassUnit : 1;
}

// Row sums of one launch of live dlogits, in its parts, onto what the launches before had.
__global__ void __launch_bounds__(kFillThreads) add_live_rows(const __grid_constant__ AddLiveSumsParams p) {
  const int row = static_cast<int>(blockIdx.x) * kFillThreads + threadIdx.x;
  if (row >= p.count.of(p.rows)) return;
  float* const to[] = {p.to.by_scale, p.to.total, p.to.square};
  const float unit = p.unit ? p.unit[row] : 1;
  const int parts = p.parts_of_span * ceil_div(p.columns_there.of(p.columns), p.span);
  for (int k = 0; k < 3; ++k) {
    float sum = 0;
    for (int part = 0; part < parts; ++part) sum += p.from[(int64_t{k} * p.parts + part) * p.rows + row];
    sum /= k == 2 ? unit * unit : unit;
    float& of = to[k][p.lines ? p.lines[row] : p.first + row];
    of = p.fresh ? sum : of + sum;
  }
}

// Each row's sum of g over the whole vocabulary, picks left out, is known from its statistics; what its live columns
// did not have of that is missing.
__global__ void __launch_bounds__(kFillThreads) missing_of_rows(const __grid_constant__ TermParams p) {
  const int64_t line = int64_t{blockIdx.x} * kFillThreads + threadIdx.x, n = p.coefs.n;
  if (line >= p.head.rows_there.of(p.head.rows)) return;
  const int64_t id = p.head.id(static_cast<int>(line));
  const auto a = [&](int k) { return p.full || k == 0 ? p.coefs.row[k * n + id] : 0.f; };
  const auto s = [&](int k) { return p.stats[k * n + id]; };
  float sum = a(0) * (p.head.curved() ? s(2) : 1);
  if (p.full) {  // term by term: a statistic that nobody wants may be infinite
    if (a(1) != 0) sum -= a(1) * s(6);
    if (a(2) != 0) sum += a(2) * expf(s(7) - 2 * s(0));
    if (a(3) != 0) sum += a(3) * s(8);
    if (a(4) != 0 && s(3) != -INFINITY) sum += a(4);
  }
  p.missing[line] = p.fill ? sum - p.sums.total[line] : 0;
  p.dense[line] = a(5);
}

LOSSK_DEVICE float row_scale(const TermParams& p, int line) { return p.head.scale ? p.head.scale[p.head.id(line)] : 1; }

// 0 for a block without dead columns, which has no term, or with so little mass there that q would be rounded to 0:
// what is missing is then the rounding of its total, and over the mass it would be anything.
template <class T>
LOSSK_DEVICE float over_mass(const TermParams& p, int block) {
  const double mass = p.mass[block];
  return mass > (std::is_same_v<T, Fp16> ? 1e-10 : 1e-30) ? static_cast<float>(1 / mass) : 0;
}

template <class T>
LOSSK_DEVICE float input_at(const TermParams& p, int line, int column) {
  float x = 0;
  for (int k = Planes<T>::planes - 1; k >= 0; --k)
    x += widen<T>(static_cast<const uint16_t*>(p.input)[(int64_t{k} * p.head.rows + line) * p.input_stride + column]);
  return x;
}

// A block of threads for each block of rows and each 256 of their features: s_i c_i input_i, summed over the rows.
template <class T>
__global__ void __launch_bounds__(kFillThreads) sums_of_blocks(const __grid_constant__ TermParams p) {
  const int block = blockIdx.x, column = static_cast<int>(blockIdx.y) * kFillThreads + threadIdx.x;
  const int rows = p.head.rows_there.of(p.head.rows), first = block * kSketchRows;
  const int end = min(first + kSketchRows, rows);
  float term = 0, dense = 0;
  double total = 0, dense_total = 0;
  for (int line = first; line < end; ++line) {
    const float by = row_scale(p, line), missing = by * p.missing[line], of_dense = by * p.dense[line];
    total += missing, dense_total += of_dense;
    if (column >= p.d) continue;
    const float x = input_at<T>(p, line, column);
    term += missing * x, dense += of_dense * x;
  }
  const float share = first < rows ? over_mass<T>(p, block) : 0;
  if (column < p.d) {
    p.c[int64_t{block} * p.d + column] = share * term;
    p.dense_parts[int64_t{block} * p.d + column] = dense;
  }
  if (column == 0) {
    p.totals[block] = share * total;
    p.totals[p.terms + block] = dense_total;
  }
}

// The dense term, over all blocks in order.
__global__ void __launch_bounds__(kFillThreads) dense_of_blocks(const __grid_constant__ TermParams p) {
  const int column = static_cast<int>(blockIdx.x) * kFillThreads + threadIdx.x;
  if (column < p.d) {
    float sum = 0;
    for (int b = 0; b < p.blocks; ++b) sum += p.dense_parts[int64_t{b} * p.d + column];
    p.c[int64_t{p.blocks} * p.d + column] = sum;
  }
  if (column == 0) {
    double total = 0;
    for (int b = 0; b < p.blocks; ++b) total += p.totals[p.terms + b];
    p.totals[p.blocks] = total;
  }
}

// units[0]: of c. units[1]: of the dense term's q. units[2]: that of a product of q and c.
constexpr int kUnitThreads = 1024;
template <class T>
__global__ void __launch_bounds__(kUnitThreads) units_of_terms(const __grid_constant__ TermParams p) {
  LOSSK_SHARED(raw);
  auto* scratch = reinterpret_cast<float*>(raw);
  float unit = 1, dense = 1;
  if constexpr (std::is_same_v<T, Fp16>) {
    float aux = p.head.aux ? 0 : 1;
    for (int v = threadIdx.x; p.head.aux && v < p.head.columns; v += kUnitThreads)
      aux = maximum(aux, fabsf(p.head.aux[v]));
    dense = kLargestFactor / fmaxf(block_reduce(aux, Max(), scratch), 1e-30f);
    float most = 0;
    for (int term = 0; term < p.terms; ++term)
      for (int column = threadIdx.x; column < p.d; column += kUnitThreads)
        most = maximum(most, fabsf(p.c[int64_t{term} * p.d + column]) * (term < p.blocks ? 1 : kMassUnit / dense));
    unit = kLargestFactor / fmaxf(block_reduce(most, Max(), scratch), 1e-30f);
  }
  if (threadIdx.x == 0) p.units[0] = unit, p.units[1] = dense, p.units[2] = unit * mass_unit<T>();
}

template <class T>
LOSSK_DEVICE void store_planes(void* to, int64_t place, int64_t plane, float x) {
  auto* out = static_cast<uint16_t*>(to) + place;
  if constexpr (Planes<T>::planes == 1) {
    *out = static_cast<uint16_t>(pack<T>(x, 0));
  } else {
    uint16_t parts[3];
    split(x, parts);
    for (int k = 0; k < 3; ++k) out[k * plane] = parts[k];
  }
}

// c as the products take it, zero beyond its features.
template <class T>
__global__ void __launch_bounds__(kFillThreads) round_terms(const __grid_constant__ TermParams p) {
  const int64_t i = int64_t{blockIdx.x} * kFillThreads + threadIdx.x, all = int64_t{p.terms} * p.padded;
  if (i >= all) return;
  const int term = static_cast<int>(i / p.padded), column = static_cast<int>(i % p.padded);
  float x = column < p.d ? p.c[int64_t{term} * p.d + column] * p.units[0] : 0;
  if (std::is_same_v<T, Fp16> && term >= p.blocks) x *= kMassUnit / p.units[1];
  store_planes<T>(p.rounded, i, all, x);
}

// A thread for each column: q of all terms there.
template <class T>
__global__ void __launch_bounds__(kFillThreads) q_of_columns(const __grid_constant__ QParams p) {
  const TermParams& t = p.t;
  const int at = static_cast<int>(blockIdx.x) * kFillThreads + threadIdx.x;
  if (at >= p.stride) return;
  const int column = p.first + at, v = t.head.columns, blocks = blocks_there(t.head);
  const bool there = at < p.count;
  const int64_t plane = int64_t{t.terms} * p.stride;
  const InLive in(t.picked, t.sketch, v, blocks, InLive::tau_of(t.tau, t.general));
  double bias = 0;
  for (int list = 0; list * kListBlocks < t.blocks; ++list) {
    const bool dead = there && t.fill && list * kListBlocks < blocks && !in(list, column);
    for (int b = list * kListBlocks; b < min((list + 1) * kListBlocks, t.blocks); ++b) {
      float q = dead && b < blocks ? in.mass(b, column) : 0;
      if (q != 0) bias += q * t.totals[b];
      if (t.head.distance == Distance::cosine && q != 0)  // as a cosine's dlogits have it
        q = fminf(q * t.head.bias[column], kMostQ);
      store_planes<T>(p.q, int64_t{b} * p.stride + at, plane, mass_unit<T>() * q);
    }
  }
  if (t.terms > t.blocks) {
    const float aux = !there ? 0 : t.head.aux ? t.head.aux[column] : 1;
    bias += aux * t.totals[t.blocks];
    store_planes<T>(p.q, int64_t{t.blocks} * p.stride + at, plane, t.units[1] * aux);
  }
  if (p.grad_bias && there) p.grad_bias[column] += static_cast<float>(bias);
}

// A block of threads for each row: its part of the terms onto the live part of d input, rounded; and d scale.
template <class T>
__global__ void __launch_bounds__(kFillThreads) finish_rows(const __grid_constant__ FinishParams p) {
  LOSSK_SHARED(raw);
  constexpr int kPlanes = Planes<T>::planes;
  const TermParams& t = p.t;
  const int line = blockIdx.x, rows = t.head.rows_there.of(t.head.rows);
  if (line >= rows) return;
  const int block = line / kSketchRows;
  const int64_t id = t.head.id(line);
  const float missing = t.missing[line] * over_mass<T>(t, block), dense = t.dense[line], scale = row_scale(t, line);
  const float of_block = missing / mass_unit<T>(), of_dense = t.terms > t.blocks ? dense / t.units[1] : 0;
  float dot = 0;
  for (int column = threadIdx.x; column < t.d; column += kFillThreads) {
    float fill = t.blocks < t.terms ? of_dense * p.mixed[int64_t{t.blocks} * t.d + column] : 0;
    if (missing != 0) fill += of_block * p.mixed[int64_t{block} * t.d + column];
    if (p.grad_scale) dot += fill * input_at<T>(t, line, column);
    if (!p.sum) continue;
    const float x = p.sum[int64_t{line} * t.d + column] + scale * fill;
    if (t.head.distance != Distance::none) {
      p.sum[int64_t{line} * t.d + column] = x;
      continue;
    }
    if constexpr (kPlanes > 1) static_cast<float*>(p.grad_input)[id * t.d + column] = x;
    else static_cast<uint16_t*>(p.grad_input)[id * t.d + column] = static_cast<uint16_t>(pack<T>(x, 0));
  }
  if (t.head.distance != Distance::none && threadIdx.x == 0)
    t.sums.by_scale[line] += missing != 0 ? t.missing[line] : 0;
  if (!p.grad_scale) return;
  dot = block_reduce(dot, Sum(), reinterpret_cast<float*>(raw));
  if (threadIdx.x != 0) return;
  if (p.bias && missing != 0) dot += static_cast<float>(missing * p.bias[block]);
  if (p.bias && t.terms > t.blocks) dot += static_cast<float>(dense * p.bias[t.blocks]);
  p.grad_scale[id] = t.sums.by_scale[line] + dot;
}

// The dense term's sum over the vocabulary of q times bias.
__global__ void __launch_bounds__(kUnitThreads) bias_of_dense(const __grid_constant__ Head head, double* sum) {
  LOSSK_SHARED(raw);
  double own = 0;
  for (int v = threadIdx.x; v < head.columns; v += kUnitThreads) own += (head.aux ? head.aux[v] : 1) * head.bias[v];
  own = sum_block(own, *reinterpret_cast<SumShared<kUnitThreads>*>(raw));
  if (threadIdx.x == 0) *sum = own;
}

// A block of threads for each block of rows: what python/lossk/_live.py reports.
__global__ void __launch_bounds__(kSketchRows) report_blocks(const __grid_constant__ ReportParams p) {
  LOSSK_SHARED(raw);
  auto* scratch = reinterpret_cast<float*>(raw);
  const TermParams& t = p.t;
  const int block = blockIdx.x, rows = t.head.rows_there.of(t.head.rows);
  const int line = block * kSketchRows + threadIdx.x, count = min(kSketchRows, rows - block * kSketchRows);
  if (count <= 0) return;
  float high = 0, square = 0;
  if (line < rows) {
    const int64_t id = t.head.id(line);
    const float slope = t.head.distance == Distance::none ? 1 : t.stats[2 * t.coefs.n + id];
    const float scale = row_scale(t, line), a = scale * slope * t.coefs.row[id];
    high = a * a, square = scale * scale * t.sums.square[line];
  }
  high = block_reduce(high, Max(), scratch);
  square = block_reduce(square, Sum(), scratch);
  if (threadIdx.x != 0) return;
  const int blocks = t.blocks;
  p.live[block] = static_cast<float>(t.lists.count[block / kListBlocks]) / p.v;
  p.live[blocks + block] = static_cast<float>(t.mass[block] / count);
  p.live[2 * blocks + block] = high * static_cast<float>(p.square[block]);
  p.live[3 * blocks + block] = square;
}

}  // namespace lossk::head
