// Gradients by the logits that were compared, as the products of the backward take them.
#pragma once
#include "head/compare/sums.cuh"
#include "head/rows/narrow.cuh"

namespace lossk::head {

// Four neighbours, from `place` on.
LOSSK_DEVICE void store_dlogits(const SideDlogits& to, int64_t plane, int64_t place, const Four& g) {
  struct alignas(8) Pairs {
    uint32_t low, high;
  };
  const auto at = [&](int64_t i) -> Pairs& {
    return *reinterpret_cast<Pairs*>(static_cast<uint16_t*>(to.out) + i * plane + place);
  };
  if (to.type == Element::bf16) {
    at(0) = {pack_bf16(g.x[0], g.x[1]), pack_bf16(g.x[2], g.x[3])};
  } else if (to.type == Element::fp16) {
    at(0) = {pack_fp16(g.x[0], g.x[1]), pack_fp16(g.x[2], g.x[3])};
  } else {
    uint16_t parts[4][3];
#pragma unroll
    for (int i = 0; i < 4; ++i) split(g.x[i], parts[i]);
#pragma unroll
    for (int i = 0; i < 3; ++i)
      at(i) = {parts[0][i] | uint32_t{parts[1][i]} << 16, parts[2][i] | uint32_t{parts[3][i]} << 16};
  }
}

// d loss / dz and d loss / du of a column, for a row's coefficient of 1. `a`, `b`: the row's sums.
template <Compare k>
LOSSK_DEVICE Two<float> derivatives(const Facts& f, float beta, float a, float b, float z, float u) {
  if constexpr (k == Compare::mean) {
    const float p = expf(z - f.lse_z - f.low_z);
    return {p == 0 ? 0 : p * (u - a), p};
  } else if constexpr (of_probabilities(k)) {
    const float logp = z - f.lse_z - f.low_z, logq = u - f.lse_u - f.low_u, p = expf(logp), q = expf(logq);
    const Two<float> t = Comparison<Floats>::terms<k>(beta, logp, logq, p, q, u);
    return {p == 0 ? t.z : t.z - p * a, q == 0 ? t.u : t.u - q * b};
  } else {
    const auto e = Comparison<Floats>::entry<k>(beta, z, of_two_heads(k) ? u : f.u, f.c);
    return {e.dz, e.du};
  }
}

// One side of a row, as its dlogits are written.
class SideLine {
 public:
  LOSSK_DEVICE SideLine(const SideDlogits& to, const LogitLine& of, int line_of_all, float coef)
      : to_(to), of_(of), line_(line_of_all), factor_(to.unit && to.out ? coef * to.unit[line_of_all] : coef) {}

  // Of columns column .. column + 3: what was read, its logits, and d / d logit for a coefficient of 1.
  LOSSK_DEVICE void write(
      const Four& unscaled, const Four& z, const Four& d, int column, int64_t stride, int64_t plane) {
    if (!to_.out) return;
    Four out;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float g = d.x[i] == 0 ? 0 : factor_ * d.x[i] * of_.slope(z.x[i]);
      if (g != 0) sum_ += g * unscaled.x[i];
      out.x[i] = g * of_.row().scale;
    }
    store_dlogits(to_, plane, line_ * stride + column, out);
  }
  // By all lanes.
  LOSSK_DEVICE void end(int span, int64_t n) const {
    if (!to_.out || !to_.row_sums) return;
    const float sum = warp_reduce(sum_, Sum());
    if (lane_index() == 0) to_.row_sums[span * n + line_] = sum;
  }

 private:
  const SideDlogits& to_;
  const LogitLine& of_;
  const int64_t line_;  // of the whole product
  const float factor_;
  float sum_ = 0;
};

// A warp for each row and each span of columns.
__global__ void __launch_bounds__(kLineThreads) dlogits_of_compared(const __grid_constant__ CompareDlogitsParams p) {
  const Compared& c = p.of;
  const Head& head = c.z.head;
  const int line = static_cast<int>(blockIdx.x) * kLines + static_cast<int>(threadIdx.x) / kWarp;
  const int rows = head.rows_there.of(head.rows), line_of_all = head.first_row + line;
  if (line >= min(head.rows, round_up(rows, 64))) return;
  const int first = static_cast<int>(blockIdx.y) * kCompareSpan;
  const int end = min(first + kCompareSpan, round_up(head.columns, 8));
  const int64_t plane = int64_t{c.n} * p.stride;
  if (line >= rows) {
    for (int column = first + 4 * lane_index(); column < end; column += kLineColumns) {
      const int64_t place = line_of_all * p.stride + column;
      if (p.z.out) store_dlogits(p.z, plane, place, {});
      if (p.u.out) store_dlogits(p.u, plane, place, {});
    }
    return;
  }
  const LogitLine of_z(head, c.z.raw, c.stride, line), of_u(c.u.head, c.u.raw, c.stride, line);
  const int64_t id = of_z.row().id;
  const Facts f = facts_of(c, id);
  const bool summed = of_probabilities(c.kind);
  const float coef = p.coef[id], a = summed ? p.sums[id] : 0, b = summed ? p.sums[c.n + id] : 0;
  SideLine z_line(p.z, of_z, line_of_all, coef), u_line(p.u, of_u, line_of_all, coef);
  with_kind(c.kind, [&]<Compare k>() {
    for (int column = first + 4 * lane_index(); column < end; column += kLineColumns) {
      const Four raw_z = of_z.unscaled(column), raw_u = of_two_heads(k) ? of_u.unscaled(column) : Four{};
      Four z, u = {}, dz, du;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        z.x[i] = of_z.logit(raw_z.x[i]);
        if (of_two_heads(k)) u.x[i] = of_u.logit(raw_u.x[i]);
        Two<float> d{0, 0};
        if (column + i < head.columns && column + i != f.skip) d = derivatives<k>(f, c.beta, a, b, z.x[i], u.x[i]);
        dz.x[i] = d.z, du.x[i] = d.u;
      }
      z_line.write(raw_z, z, dz, column, p.stride, plane);
      if (of_two_heads(k)) u_line.write(raw_u, u, du, column, p.stride, plane);
    }
  });
  z_line.end(blockIdx.y, c.n);
  u_line.end(blockIdx.y, c.n);
}

__global__ void __launch_bounds__(kLineThreads) bounds_of_compared(const __grid_constant__ CompareBoundsParams p) {
  const int64_t row = int64_t{blockIdx.x} * kLineThreads + threadIdx.x;
  if (row >= p.n) return;
  const float* of = of_two_heads(p.kind) ? p.sums : p.offset;
  const float a = of[row], b = of[p.n + row];
  p.bound[row] = std::fabs(p.coef[row]) * bound(p.kind, p.beta, a, b, p.by_u);
}

}  // namespace lossk::head
