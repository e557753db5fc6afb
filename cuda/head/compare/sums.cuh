// What divergences and pairwise losses sum over a row: a warp for each segment of a row.
#pragma once
#include "device/reduce.h"
#include "head/compare/params.h"
#include "head/logit_line.cuh"

namespace lossk::head {

struct Floats {  // Comparison's arithmetic, a number at a time
  using T = float;
  using V = float;
  LOSSK_HOST_DEVICE static float fill(float x) { return x; }
  LOSSK_HOST_DEVICE static float exp(float x) { return expf(x); }
  LOSSK_HOST_DEVICE static float log(float x) { return logf(x); }
  LOSSK_HOST_DEVICE static float tanh(float x) { return tanhf(x); }
};

// Of logits a, whose probabilities weigh, and b, relative to their largest so far: sum w ((a - max_a) - (b - max_b)), w
// = exp(a - max_a), or for a mean sum w b. Divided by sum w it is the divergence but for the logarithms of both sums.
template <class T>
struct OnePass {
  T max_a = -INFINITY, sum_a = 0, max_b = -INFINITY, sum_b = 0, cross = 0;

  // Trap: where all logits are -inf, or one is inf, a difference from the largest would be inf - inf.
  LOSSK_DEVICE static T shift(T max) { return std::fabs(max) == T(INFINITY) ? T(0) : max; }

  // Relative to others, which are not smaller. What is infinite stays so: a has mass where b has none.
  LOSSK_DEVICE void move(T to_a, T to_b, bool mean) {
    const T by_a = max_a - shift(to_a), by_b = max_b - shift(to_b);
    if (sum_a != 0) {
      const T factor = std::exp(by_a);
      if (cross != T(INFINITY)) cross = factor * (mean ? cross : cross + sum_a * (by_a - by_b));
      sum_a *= factor;
    }
    if (sum_b != 0) sum_b *= std::exp(by_b);
    max_a = to_a, max_b = to_b;
  }

  template <class U>
  LOSSK_DEVICE void merge(const OnePass<U>& other, bool mean) {
    OnePass o{other.max_a, other.sum_a, other.max_b, other.sum_b, other.cross};
    const T to_a = o.max_a > max_a ? o.max_a : max_a, to_b = o.max_b > max_b ? o.max_b : max_b;
    move(to_a, to_b, mean), o.move(to_a, to_b, mean);
    sum_a += o.sum_a, sum_b += o.sum_b, cross += o.cross;
  }

  LOSSK_DEVICE void add(const Four& a, const Four& b, bool mean) {
    T to_a = max_a, to_b = max_b;
#pragma unroll
    for (int i = 0; i < 4; ++i) to_a = maximum(to_a, a.x[i]), to_b = maximum(to_b, b.x[i]);
    move(to_a, to_b, mean);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const T d = a.x[i] - shift(to_a), e = b.x[i] - shift(to_b), w = expf(d);
      sum_a += w, sum_b += expf(e);
      cross += w == 0 ? 0 : w * (mean ? b.x[i] : d - e);
    }
  }
};

static_assert(sizeof(OnePass<float>) == sizeof(OnePassPartial));

// A warp's: lines along a grid's x, segments along its y.
struct Segment {
  int line, first, end;
  int64_t place;  // among the segments and the product's rows
};
LOSSK_DEVICE Segment own_segment(const Head& head, int columns, int n) {
  const int line = static_cast<int>(blockIdx.x) * kLines + static_cast<int>(threadIdx.x) / kWarp;
  const int first = static_cast<int>(blockIdx.y) * columns, index = head.first / columns + static_cast<int>(blockIdx.y);
  return {line, first, min(first + columns, head.columns), int64_t{index} * n + head.first_row + line};
}

LOSSK_DEVICE bool is_there(const Head& head, int line) { return line < head.rows_there.of(head.rows); }

__global__ void __launch_bounds__(kLineThreads) sums_in_one_pass(const __grid_constant__ CompareSumsParams p) {
  const Compared& c = p.of;
  const Segment own = own_segment(c.z.head, p.segment, c.n);
  if (!is_there(c.z.head, own.line)) return;
  const bool mean = c.kind == Compare::mean, swapped = c.kind == Compare::forward_kl;
  const Side &of_a = swapped ? c.u : c.z, &of_b = swapped ? c.z : c.u;
  const LogitLine a(of_a.head, of_a.raw, c.stride, own.line), b(of_b.head, of_b.raw, c.stride, own.line);
  OnePass<float> s;
  for (int column = own.first + 4 * lane_index(); column < own.end; column += kLineColumns)
    s.add(a.logits(column), b.logits(column), mean);
#pragma unroll
  for (int lanes = 1; lanes < kWarp; lanes *= 2)
    s.merge(
        OnePass<float>{
            shuffle_xor(s.max_a, lanes), shuffle_xor(s.sum_a, lanes), shuffle_xor(s.max_b, lanes),
            shuffle_xor(s.sum_b, lanes), shuffle_xor(s.cross, lanes)},
        mean);
  if (lane_index() == 0) static_cast<OnePass<float>*>(p.partial)[own.place] = s;
}

// What a row is compared by.
struct Facts {
  float lse_z, low_z, lse_u, low_u;
  float u, c;    // numbers in place of a second head
  int64_t skip;  // among the part's columns, or outside
};
LOSSK_DEVICE Facts facts_of(const Compared& c, int64_t id) {
  Facts f{};
  f.skip = -1;
  if (of_probabilities(c.kind)) {
    f.lse_z = c.z.lse[id], f.low_z = c.z.lse[c.n + id];
    f.lse_u = c.u.lse[id], f.low_u = c.u.lse[c.n + id];
  } else if (!of_two_heads(c.kind)) {
    f.u = c.offset[id], f.c = c.offset[c.n + id];
    if (c.skip) f.skip = c.skip[id] - c.z.head.first;
  }
  return f;
}

// What a column adds. z - lse first: the difference of two large numbers is exact.
template <Compare k>
LOSSK_DEVICE TwoSums summed(const Facts& f, float beta, float z, float u) {
  if constexpr (of_probabilities(k)) {
    const float logp = z - f.lse_z - f.low_z, logq = u - f.lse_u - f.low_u;
    const Two<float> t = Comparison<Floats>::terms<k>(beta, logp, logq, expf(logp), expf(logq), u);
    return {t.z, t.u};
  } else {
    const auto e = Comparison<Floats>::entry<k>(beta, z, of_two_heads(k) ? u : f.u, f.c);
    return {e.value, e.dz};
  }
}

__global__ void __launch_bounds__(kLineThreads, 2) sums_of_terms(const __grid_constant__ CompareSumsParams p) {
  const Compared& c = p.of;
  const Segment own = own_segment(c.z.head, p.segment, c.n);
  if (!is_there(c.z.head, own.line)) return;
  const LogitLine of_z(c.z.head, c.z.raw, c.stride, own.line), of_u(c.u.head, c.u.raw, c.stride, own.line);
  const Facts f = facts_of(c, of_z.row().id);
  float a[4] = {}, b[4] = {};  // short chains: fewer roundings
  with_kind(c.kind, [&]<Compare k>() {
    for (int column = own.first + 4 * lane_index(); column < own.end; column += kLineColumns) {
      const Four z = of_z.logits(column), u = of_two_heads(k) ? of_u.logits(column) : Four{};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const TwoSums s = summed<k>(f, c.beta, z.x[i], u.x[i]);
        const bool there = column + i < own.end && column + i != f.skip;
        a[i] += there ? s.a : 0, b[i] += there ? s.b : 0;
      }
    }
  });
  const float sum_a = warp_reduce((a[0] + a[1]) + (a[2] + a[3]), Sum());
  const float sum_b = warp_reduce((b[0] + b[1]) + (b[2] + b[3]), Sum());
  if (lane_index() == 0) static_cast<TwoSums*>(p.partial)[own.place] = {sum_a, sum_b};
}

// A thread for each row, in double.
__global__ void __launch_bounds__(kLineThreads) merge_rows_compared(const __grid_constant__ CompareMergeParams p) {
  const int64_t line = int64_t{blockIdx.x} * kLineThreads + threadIdx.x, n = p.n;
  if (line >= p.head.rows_there.of(p.head.rows)) return;
  const int64_t row = p.head.id(static_cast<int>(line));
  const auto write_lse = [&](int place, double lse) {
    const auto high = static_cast<float>(lse);
    p.lse[place * n + row] = high;
    p.lse[(place + 1) * n + row] = std::fabs(lse) == INFINITY ? 0 : static_cast<float>(lse - high);
  };
  double a = 0, b = 0;
  if (in_one_pass(p.kind)) {
    const bool mean = p.kind == Compare::mean, swapped = p.kind == Compare::forward_kl;
    OnePass<double> s;
    for (int i = 0; i < p.segments; ++i) s.merge(static_cast<const OnePass<float>*>(p.partial)[i * n + line], mean);
    const double log_a = std::log(s.sum_a), log_b = std::log(s.sum_b);
    double sum = s.cross / s.sum_a;
    if (!mean && sum != INFINITY) sum += log_b - log_a;
    if (p.segments > 0) (swapped ? b : a) = sum;
    const double lse_a = s.sum_a == 0 ? -INFINITY : s.max_a + log_a;
    const double lse_b = s.sum_b == 0 ? -INFINITY : s.max_b + log_b;
    write_lse(0, swapped ? lse_b : lse_a);
    write_lse(2, swapped ? lse_a : lse_b);
  } else {
    for (int i = 0; i < p.segments; ++i) {
      const TwoSums s = static_cast<const TwoSums*>(p.partial)[i * n + line];
      a += s.a, b += s.b;
    }
    for (int i = 0; i < 2 && p.lse && p.lse_z; ++i) {
      p.lse[i * n + row] = p.lse_z[i * n + row];
      p.lse[(2 + i) * n + row] = p.lse_u[i * n + row];
    }
  }
  p.sums[row] = static_cast<float>(a);
  p.sums[n + row] = static_cast<float>(b);
}

}  // namespace lossk::head
