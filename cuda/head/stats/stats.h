// The forward of both paths; Path says with which kernel.
#pragma once
#include "head/product/launch.h"
#include "head/stats/stats.cuh"

namespace lossk::head {

// One of three epilogues: every statistic; lse of a head without options; lse of any.
template <
    class Path, class T, template <class, int> class Full, template <class, int> class Plain,
    template <class, int> class Any>
[[nodiscard]] cudaError_t multiply_logits(const StatsParams& p, bool full, cudaStream_t stream) {
  if (p.head.distance != Distance::none) return cudaErrorInvalidValue;
  if (full) return Path::template multiply<T, Along::depth, Along::depth, Full>(p.product, p, stream);
  if (p.head.plain()) return Path::template multiply<T, Along::depth, Along::depth, Plain>(p.product, p, stream);
  return Path::template multiply<T, Along::depth, Along::depth, Any>(p.product, p, stream);
}

template <class Path>
[[nodiscard]] cudaError_t stats_by(const StatsParams& p, Element type, bool full, cudaStream_t stream) {
  return for_type(type, [&](auto element) {
    using T = decltype(element);
    if (p.head.distance != Distance::none && !full)
      return Path::template multiply<T, Along::depth, Along::depth, DistanceLse>(p.product, p, stream);
    return multiply_logits<Path, T, FullStats, PlainLse, AnyLse>(p, full, stream);
  });
}

template <class Path>
[[nodiscard]] cudaError_t sketch_by(const StatsParams& p, Element type, bool full, cudaStream_t stream) {
  return for_type(type, [&](auto element) {
    using T = decltype(element);
    if (p.head.distance != Distance::none && !full)
      return Path::template multiply<T, Along::depth, Along::depth, DistanceSketch>(p.product, p, stream);
    return multiply_logits<Path, T, FullSketch, PlainSketch, AnySketch>(p, full, stream);
  });
}

}  // namespace lossk::head
