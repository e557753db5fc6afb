// The loss of cce_forward (cpp/ops.cpp) from its rows' statistics, and the coefficients of its gradient.
#pragma once
#include "head/stats/params.h"
#include "head/stats/sum.cuh"

namespace lossk::head {

using namespace device;

constexpr int kLossThreads = 512;

__global__ void __launch_bounds__(kLossThreads) loss_of_rows(const __grid_constant__ LossParams p) {
  LOSSK_SHARED(raw);
  const int64_t n = p.head.rows;
  const int rows = p.head.rows_there.of(p.head.rows), k = p.head.picks.count;
  double sum = 0;
  for (int line = threadIdx.x; line < rows; line += kLossThreads) {
    const int64_t row = p.head.id(line);
    const double a = p.coef[row], b = p.coef[n + row], lse = double{p.stats[row]} + p.stats[n + row];
    sum += a * lse + b * lse * lse;
    p.row_coef[row] = static_cast<float>(a + 2 * b * lse);
    if (p.full) {
      const double c = p.coef[2 * n + row];
      const bool distance = p.head.distance != Distance::none;
      if (c != 0) sum += c * (distance ? p.stats[3 * n + row] : p.stats[9 * n + row] + *p.aux_sum * lse);
      p.row_coef[(distance ? 1 : 5) * n + row] = p.coef[2 * n + row];
    }
    for (int i = 0; i < k; ++i)
      if (p.index[row * k + i] != -1) sum -= double{p.pick_coef[row * k + i]} * p.picked[row * k + i];
  }
  sum = sum_block(sum, *reinterpret_cast<SumShared<kLossThreads>*>(raw));
  if (threadIdx.x == 0) *p.loss = static_cast<float>(sum);
}

}  // namespace lossk::head
