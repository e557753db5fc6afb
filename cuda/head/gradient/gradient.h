// The backward's products by both paths; Path says with which kernel.
#pragma once
#include "head/gradient/dlogits.cuh"
#include "head/gradient/store.cuh"
#include "head/product/launch.h"

namespace lossk::head {

inline bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

template <class Path, class T>
[[nodiscard]] cudaError_t dlogits_of(const DlogitsParams& p, bool full, cudaStream_t stream) {
  if (p.head.distance != Distance::none)
    return Path::template multiply<T, Along::depth, Along::depth, DistanceDlogits>(p.product, p, stream);
  if (full) return Path::template multiply<T, Along::depth, Along::depth, FullDlogits>(p.product, p, stream);
  if (p.head.plain() && !p.row_sums)
    return Path::template multiply<T, Along::depth, Along::depth, PlainDlogits>(p.product, p, stream);
  return Path::template multiply<T, Along::depth, Along::depth, AnyDlogits>(p.product, p, stream);
}

[[nodiscard]] inline bool valid(const DlogitsParams& p, Element type) {
  return p.stride % 8 == 0 && p.stride >= p.head.columns && aligned(p.out) &&
         (type == Element::fp16) == (p.unit != nullptr);
}

template <class Path>
[[nodiscard]] cudaError_t dlogits_by(const DlogitsParams& p, Element type, bool full, cudaStream_t stream) {
  if (!valid(p, type)) return cudaErrorInvalidValue;
  return for_type(type, [&](auto element) { return dlogits_of<Path, decltype(element)>(p, full, stream); });
}

template <class Path, class T>
[[nodiscard]] cudaError_t live_dlogits_of(const DlogitsParams& p, bool full, cudaStream_t stream) {
  if (p.head.distance != Distance::none)
    return Path::template multiply<T, Along::depth, Along::depth, DistanceLiveDlogits>(p.product, p, stream);
  if (full) return Path::template multiply<T, Along::depth, Along::depth, FullLiveDlogits>(p.product, p, stream);
  if (p.head.plain() && !p.scale)
    return Path::template multiply<T, Along::depth, Along::depth, PlainLiveDlogits>(p.product, p, stream);
  return Path::template multiply<T, Along::depth, Along::depth, AnyLiveDlogits>(p.product, p, stream);
}

template <class Path>
[[nodiscard]] cudaError_t live_dlogits_by(const DlogitsParams& p, Element type, bool full, cudaStream_t stream) {
  if (!valid(p, type) || !p.row_sums) return cudaErrorInvalidValue;
  return for_type(type, [&](auto element) { return live_dlogits_of<Path, decltype(element)>(p, full, stream); });
}

template <class Path, class T>
[[nodiscard]] cudaError_t store_of(const StoreParams& p, Along a, Along b, cudaStream_t stream) {
  if (b == Along::depth) {
    if (a == Along::rows) return cudaErrorInvalidValue;
    return Path::template multiply<T, Along::depth, Along::depth, StoreEpilogue>(p.product, p, stream);
  }
  if (a == Along::rows)
    return Path::template multiply<T, Along::rows, Along::rows, StoreEpilogue>(p.product, p, stream);
  return Path::template multiply<T, Along::depth, Along::rows, StoreEpilogue>(p.product, p, stream);
}

template <class Path>
[[nodiscard]] cudaError_t store_by(const StoreParams& p, Element type, Along a, Along b, cudaStream_t stream) {
  if (!aligned(p.out) || !aligned(p.sum)) return cudaErrorInvalidValue;
  const auto multiply = [&](const StoreParams& of) {
    return for_type(type, [&](auto element) { return store_of<Path, decltype(element)>(of, a, b, stream); });
  };
  if (p.product.slices == 1) return multiply(p);
  // join_slices reads all rows of `count`.
  const bool same_rows = p.count.there == p.product.rows_there.there && p.count.before == p.product.rows_there.before;
  if (!p.slices || !aligned(p.slices) || p.product.only_with_depth || p.product.columns_there.there || !same_rows)
    return cudaErrorInvalidValue;
  const StoreParams apart{
      .product = p.product,
      .sum = p.slices,
      .count = p.count,
      .rows = p.rows,
      .columns = p.columns,
      .first = true,
      .last = false};
  const auto error = multiply(apart);
  return error != cudaSuccess ? error : join_slices(p, type, stream);
}

}  // namespace lossk::head
