// A product by mma.sync, instantiated where this is included.
#pragma once
#include "head/product/launch.h"
#include "head/product/product_mma.cuh"

namespace lossk::head {

template <class T, Along a, Along b, template <class, int> class Epilogue>
[[nodiscard]] cudaError_t multiply_mma_sync(
    const Product& p, const typename Epilogue<T, 1>::Params& parameters, cudaStream_t stream) {
  using Config = MmaConfigOf<T, Epilogue>;
  if (!valid(p, Config::kColumns, Epilogue<T, 1>::kSliced)) return cudaErrorInvalidValue;
  device::Launch l{};
  const auto kernel = product_mma_sync<T, a, b, Epilogue>;
  const auto error = plan_product<Config, Epilogue<T, 1>>(kernel, p, stream, &l);
  return error != cudaSuccess || l.blocks.x == 0 ? error : device::launch(kernel, l, p, parameters);
}

struct MmaSync {
  template <class T, Along a, Along b, template <class, int> class Epilogue>
  static cudaError_t multiply(const Product& p, const typename Epilogue<T, 1>::Params& e, cudaStream_t stream) {
    return multiply_mma_sync<T, a, b, Epilogue>(p, e, stream);
  }
};

}  // namespace lossk::head
