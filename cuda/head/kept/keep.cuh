// Statistics whose epilogue also keeps the logits.
#pragma once
#include "head/kept/logit.cuh"
#include "head/rows/narrow.cuh"
#include "head/stats/stats.h"

namespace lossk::head {

template <class Base>
class KeepEpilogue : public Base {
 public:
  LOSSK_DEVICE explicit KeepEpilogue(const StatsParams& p) : Base(p), p_(p) {}

  // By all lanes of the warp: rows and columns that are not there take part in the exchange.
  template <int count, class Logits>
  LOSSK_DEVICE void add(int slot, int line, int column, const Logits& z) {
    Base::template add<count>(slot, line, column, z);
    const int lane = lane_index() % 4, first = column - 2 * lane;
    float top = Base::max(slot);
#pragma unroll
    for (int lanes = 1; lanes < 4; lanes *= 2) top = maximum(top, shuffle_xor(top, lanes));
    const int columns = line < p_.head.rows_there.of(p_.head.rows) ? p_.head.columns : 0;
    uint16_t* to = p_.kept.values + line * p_.kept.line + first + 8 * lane;
#pragma unroll
    for (int group = 0; group < count / 2; group += 4) {
      Eight x;
#pragma unroll
      for (int k = 0; k < 4; ++k)
        x.pairs[k] = code_below(top, z(2 * (group + k))) | code_below(top, z(2 * (group + k) + 1)) << 16;
      gather_group(x);
      if (first + 8 * (group + lane) < columns) *reinterpret_cast<Eight*>(to + 8 * group) = x;
    }
    if (lane < 4 * count / kColumnsOfReference && columns > 0)
      *p_.kept.reference(line, first / kColumnsOfReference + lane) = top;
  }

 private:
  const StatsParams& p_;
};
template <class T, int slots>
using KeepPlainLse = KeepEpilogue<PlainLse<T, slots>>;
template <class T, int slots>
using KeepAnyLse = KeepEpilogue<AnyLse<T, slots>>;
template <class T, int slots>
using KeepFullStats = KeepEpilogue<FullStats<T, slots>>;

template <class Path>
[[nodiscard]] cudaError_t keep_by(const StatsParams& p, Element type, bool full, cudaStream_t stream) {
  if (!p.kept.valid(p.head.columns) || p.head.softcap.cap > 0) return cudaErrorInvalidValue;
  switch (type) {
    case Element::bf16: return multiply_logits<Path, Bf16, KeepFullStats, KeepPlainLse, KeepAnyLse>(p, full, stream);
#ifndef LOSSK_ONLY_BF16
    case Element::fp16: return multiply_logits<Path, Fp16, KeepFullStats, KeepPlainLse, KeepAnyLse>(p, full, stream);
#endif
    default: return cudaErrorInvalidValue;
  }
}

}  // namespace lossk::head
