// The forward of both paths; Path says with which kernel.
#pragma once
#include "head/product/launch.h"
#include "head/stats/stats.cuh"

namespace lossk::head {

template <class Path, class T>
[[nodiscard]] cudaError_t stats_of(const StatsParams& p, bool full, cudaStream_t stream) {
  if (full) return Path::template multiply<T, Along::depth, Along::depth, FullStats>(p.product, p, stream);
  if (p.head.plain()) return Path::template multiply<T, Along::depth, Along::depth, PlainLse>(p.product, p, stream);
  return Path::template multiply<T, Along::depth, Along::depth, AnyLse>(p.product, p, stream);
}

template <class Path>
[[nodiscard]] cudaError_t stats_by(const StatsParams& p, Element type, bool full, cudaStream_t stream) {
  return for_type(type, [&](auto element) { return stats_of<Path, decltype(element)>(p, full, stream); });
}

template <class Path, class T>
[[nodiscard]] cudaError_t sketch_of(const StatsParams& p, bool full, cudaStream_t stream) {
  if (full) return Path::template multiply<T, Along::depth, Along::depth, FullSketch>(p.product, p, stream);
  if (p.head.plain()) return Path::template multiply<T, Along::depth, Along::depth, PlainSketch>(p.product, p, stream);
  return Path::template multiply<T, Along::depth, Along::depth, AnySketch>(p.product, p, stream);
}

template <class Path>
[[nodiscard]] cudaError_t sketch_by(const StatsParams& p, Element type, bool full, cudaStream_t stream) {
  return for_type(type, [&](auto element) { return sketch_of<Path, decltype(element)>(p, full, stream); });
}

}  // namespace lossk::head
