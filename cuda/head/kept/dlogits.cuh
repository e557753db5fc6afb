// dlogits of kept logits: what the gradient's epilogue makes of a product, without one.
#pragma once
#include "device/barrier.h"
#include "head/gradient/dlogits.cuh"
#include "head/kept/logit.cuh"
#include "head/kept/params.h"

namespace lossk::head {

constexpr int kKeptThreads = 128, kKeptColumns = 4 * 8 * kKeptThreads;  // of a block: four copies of 16 bytes a thread

// What a row's dlogits are made with. `full` as DlogitsEpilogue has it.
template <class T, bool full>
class KeptRow {
 public:
  LOSSK_DEVICE KeptRow(const DlogitsParams& p, int line) : coefs_(p.coefs), id_(p.head.id(line)) {
    if constexpr (std::is_same_v<T, Fp16>) unit_ = p.unit[line];
    if (p.head.scale) scale_ = p.head.scale[id_];
    lse_ = of(coefs_.lse, 0), lse_low_ = of(coefs_.lse, 1);
    if (full && coefs_.lse_excl) lse_excl_ = of(coefs_.lse_excl, 0), lse_excl_low_ = of(coefs_.lse_excl, 1);
#pragma unroll
    for (int k = 0; k < kCoefs; ++k) a_[k] = unit_ * of(coefs_.row, k);
  }

  // Of z, less `minus`, the coefficients of its picks.
  LOSSK_DEVICE float dlogit(float z, float aux, bool picked = false, float minus = 0) const {
    const float logp = z - lse_ - lse_low_;
    float g = weighted<full, true>(a_, probability<full>(logp), logp, aux);
    if constexpr (full)
      if (!picked && a_[4] != 0 && lse_excl_ != -INFINITY) g += a_[4] * expf(z - lse_excl_ - lse_excl_low_);
    return scale_ * (g - unit_ * minus);
  }

  LOSSK_DEVICE int64_t id() const { return id_; }

 private:
  static constexpr int kCoefs = full ? 6 : 1;
  LOSSK_DEVICE float of(const float* rows, int k) const { return rows[int64_t{k} * coefs_.n + id_]; }

  const Coefs& coefs_;
  const int64_t id_;
  float unit_ = 1, scale_ = 1, lse_, lse_low_, lse_excl_ = -INFINITY, lse_excl_low_ = 0, a_[kCoefs];
};

// A block of threads for each row and each kKeptColumns. (One on a multiprocessor at least: without the number ptxas
// takes 32 registers, and spills on sm_90.)
template <class T, bool full>
__global__ void __launch_bounds__(kKeptThreads, 1) dlogits_of_kept(const __grid_constant__ KeptDlogitsParams p) {
  const Head& head = p.dlogits.head;
  const int line = static_cast<int>(blockIdx.x), rows = head.rows_there.of(head.rows);
  if (line >= round_up(rows, 64)) return;
  auto* out = static_cast<uint16_t*>(p.dlogits.out) + line * int64_t{p.dlogits.stride};
  const int first = static_cast<int>(blockIdx.y) * kKeptColumns, end = min(first + kKeptColumns, head.columns);
  if (line >= rows) {  // zeros up to the next 64, which d weight's product reads
    for (int c = first + 8 * threadIdx.x; c < end; c += 8 * kKeptThreads) *reinterpret_cast<Eight*>(out + c) = {};
    return;
  }
  const KeptRow<T, full> row(p.dlogits, line);
  const float* aux = full && head.aux ? head.aux + head.first : nullptr;
  const auto* values = p.kept.values + line * p.kept.line;
#pragma unroll
  for (int step = 0; step < kKeptColumns / 8 / kKeptThreads; ++step) {
    const int c = first + 8 * (step * kKeptThreads + threadIdx.x);
    if (c >= end) break;
    Eight x = *reinterpret_cast<const Eight*>(values + c);
    const float reference = *p.kept.reference(line, c / kColumnsOfReference);
    const auto dlogit = [&](int i, uint32_t code) {
      // There is nothing in the columns up to the next 8.
      return c + i < head.columns ? row.dlogit(logit_at(reference, code), aux ? aux[c + i] : 1) : 0;
    };
#pragma unroll
    for (int i = 0; i < 4; ++i)
      x.pairs[i] = pack<T>(dlogit(2 * i, x.pairs[i] & 0xffff), dlogit(2 * i + 1, x.pairs[i] >> 16));
    *reinterpret_cast<Eight*>(out + c) = x;
  }
  sync_block();
  // Picks, of which a column may have several, by the one that comes first.
  const int count = head.picks.count;
  const int* columns = head.picks.column + row.id() * count;
  for (int k = threadIdx.x; k < count; k += kKeptThreads) {
    const int column = columns[k], c = column - head.first;
    if (c < first || c >= end || (k > 0 && columns[k - 1] == column)) continue;
    const auto place = [&](int i) { return row.id() * count + head.picks.entry[row.id() * count + i]; };
    float minus = 0;
    for (int i = k; p.dlogits.coefs.pick && i < count && columns[i] == column; ++i)
      minus += p.dlogits.coefs.pick[place(i)];
    const float g = row.dlogit(p.picked[place(k)], aux ? aux[c] : 1, true, minus);
    out[c] = static_cast<uint16_t>(pack<T>(g, 0));
  }
}

}  // namespace lossk::head
