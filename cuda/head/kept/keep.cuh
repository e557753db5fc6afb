// Statistics whose epilogue also writes what the product made.
#pragma once
#include "head/stats/stats.h"

namespace lossk::head {

template <class Base>
class KeepEpilogue : public Base {
 public:
  LOSSK_DEVICE explicit KeepEpilogue(const StatsParams& p) : Base(p), p_(p) {}

  template <int count, class Logits>
  LOSSK_DEVICE void add(int slot, int line, int column, const Logits& z) {
    if (line < p_.head.rows_there.of(p_.head.rows)) {
      float* to = p_.kept.raw + int64_t{line} * p_.kept.stride;
#pragma unroll
      for (int i = 0; i < count; i += 2)
        if (const int c = column + i / 2 * 8; c < p_.head.columns) *reinterpret_cast<Two*>(to + c) = {z(i), z(i + 1)};
    }
    Base::template add<count>(slot, line, column, z);
  }

 private:
  struct alignas(8) Two {
    float x, y;
  };
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
  if (p.kept.stride % 2 || p.kept.stride < p.head.columns || reinterpret_cast<uintptr_t>(p.kept.raw) % 8)
    return cudaErrorInvalidValue;
  switch (type) {
    case Element::bf16: return multiply_logits<Path, Bf16, KeepFullStats, KeepPlainLse, KeepAnyLse>(p, full, stream);
#ifndef LOSSK_ONLY_BF16
    case Element::fp16: return multiply_logits<Path, Fp16, KeepFullStats, KeepPlainLse, KeepAnyLse>(p, full, stream);
#endif
    default: return cudaErrorInvalidValue;
  }
}

}  // namespace lossk::head
