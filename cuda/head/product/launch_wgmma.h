// A product by wgmma, instantiated where this is included.
#pragma once
#include <cstdlib>
#include <cstring>

#include "head/product/launch.h"
#include "head/product/product_wgmma.cuh"

namespace lossk::head {

// LOSSK_KERNELS=wgmma_alone: no clusters, to compare.
inline bool in_pairs() {
  const char* wanted = std::getenv("LOSSK_KERNELS");
  return !wanted || std::strcmp(wanted, "wgmma_alone") != 0;
}

template <class T, Along a, Along b, template <class, int> class Epilogue>
[[nodiscard]] cudaError_t multiply_wgmma(
    const Product& p, const typename Epilogue<T, 1>::Params& parameters, cudaStream_t stream) {
  using Config = WgmmaConfigOf<T, Epilogue>;
  if (!valid(p, Config::kColumns, Epilogue<T, 1>::kSliced)) return cudaErrorInvalidValue;
  device::Launch l{};
  const auto kernel = product_wgmma<T, a, b, Epilogue>;
  // Before the maps: the driver makes none on a thread that has no context yet, which the runtime's calls here begin.
  const int cluster = in_pairs() ? blocks_of_cluster(ceil_div(p.a.rows, Config::kRows)) : 1;
  const auto error = plan_product<Config, Epilogue<T, 1>>(kernel, p, stream, &l, cluster);
  if (error != cudaSuccess || l.blocks.x == 0) return error;
  TensorMap map_a{}, map_b{};
  if (p.depth > 0) {  // TMA knows no empty tensor: without depth nobody looks at them
    if (const auto error = map_operand<T, a>(&map_a, p.a, p.depth, Config::kRows); error != cudaSuccess) return error;
    if (const auto error = map_operand<T, b>(&map_b, p.b, p.depth, Config::kColumns / cluster); error != cudaSuccess)
      return error;
  }
  return device::launch(kernel, l, p, map_a, map_b, parameters);
}

struct Wgmma {
  template <class T, Along a, Along b, template <class, int> class Epilogue>
  static cudaError_t multiply(const Product& p, const typename Epilogue<T, 1>::Params& e, cudaStream_t stream) {
    return multiply_wgmma<T, a, b, Epilogue>(p, e, stream);
  }
};

}  // namespace lossk::head
