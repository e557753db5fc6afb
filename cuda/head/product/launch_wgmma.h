// A product by wgmma, instantiated where this is included.
#pragma once
#include "head/product/launch.h"
#include "head/product/product_wgmma.cuh"

namespace lossk::head {

// The depth is not 0, for TMA knows no empty tensor.
template <class T, Along a, Along b, template <class, int> class Epilogue>
[[nodiscard]] cudaError_t multiply_wgmma(
    const Product& p, const typename Epilogue<T, 1>::Params& parameters, cudaStream_t stream) {
  if (!valid(p, WgmmaConfig::kColumns) || p.depth == 0) return cudaErrorInvalidValue;
  if (p.a.rows == 0 || p.b.rows == 0) return cudaSuccess;
  TensorMap map_a, map_b;
  if (const auto error = map_operand<T, a>(&map_a, p.a, p.depth, WgmmaConfig::kRows); error != cudaSuccess)
    return error;
  if (const auto error = map_operand<T, b>(&map_b, p.b, p.depth, WgmmaConfig::kColumns); error != cudaSuccess)
    return error;
  return launch_product<WgmmaConfig>(product_wgmma<T, a, b, Epilogue>, p, stream, p, map_a, map_b, parameters);
}

}  // namespace lossk::head
