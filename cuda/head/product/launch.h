// From the host: a product's launch, the same for every epilogue.
#pragma once
#include <algorithm>
#include <climits>

#include "device/launch.h"
#include "device/tensor_map.h"
#include "head/product/columns.cuh"
#include "head/product/config.h"
#include "head/product/slices.h"

namespace lossk::head {

using namespace device;

// No kernel may read outside, nor an index overflow, whatever the caller says.
[[nodiscard]] inline bool valid(const Product& p, int columns, bool sliced) {
  const auto fine = [&](const Matrix& m) {
    return m.rows >= 0 && m.stride >= 0 && m.stride % 8 == 0 && m.plane >= 0 && m.plane % 8 == 0 &&
           reinterpret_cast<uintptr_t>(m.data) % 16 == 0;
  };
  return fine(p.a) && fine(p.b) && p.depth >= 0 && p.span > 0 && p.span % columns == 0 &&
         p.b.rows <= INT_MAX - p.span && p.a.rows <= INT_MAX - 256 && p.depth <= INT_MAX - kDepth && p.slices >= 1 &&
         p.slices <= (sliced ? kMostSlices : 1);
}

// call(T()), T being what the operands are made of.
template <class F>
[[nodiscard]] cudaError_t for_type(Element type, const F& call) {
  switch (type) {
    case Element::bf16: return call(Bf16());
#ifndef LOSSK_ONLY_BF16  // makes a quick build
    case Element::fp16: return call(Fp16());
    case Element::fp32: return call(float());
#endif
    default: return cudaErrorInvalidValue;
  }
}

#ifndef LOSSK_MOST_BLOCKS  // tests want several pieces for a block, from few
#define LOSSK_MOST_BLOCKS INT_MAX
#endif

// As many blocks as run at once, each with its share of the work; 0 where there is none.
template <class Config, class Epilogue, class... Parameters>
[[nodiscard]] cudaError_t plan_product(
    void (*kernel)(Parameters...), const Product& p, cudaStream_t stream, device::Launch* l, int cluster = 1) {
  constexpr int kBytes = Config::kSharedBytes + kColumnSumBytes<Config, Epilogue>;
  static_assert(kBytes <= Config::kMostSharedBytes);
  *l = {0, Config::kThreads, kBytes, stream};
  l->cluster = cluster;
  const int64_t pieces = int64_t{ceil_div(p.a.rows, Config::kRows * cluster)} * ceil_div(p.b.rows, p.span) * p.slices;
  if (pieces == 0) return cudaSuccess;
  int blocks = 0;
  if (const auto error = device::resident_blocks(kernel, *l, &blocks); error != cudaSuccess) return error;
  l->blocks =
      static_cast<int>(std::min({pieces, int64_t{blocks} / cluster, int64_t{LOSSK_MOST_BLOCKS} / cluster}) * cluster);
  return cudaSuccess;
}

// TMA's view of an operand, in the boxes that load_boxes asks for.
template <class T, Along along>
[[nodiscard]] cudaError_t map_operand(device::TensorMap* map, const Matrix& m, int depth, int tile_rows) {
  constexpr auto kElement = device::ElementOf<typename Planes<T>::Element>::value;
  constexpr int kPlanes = Planes<T>::planes, kRank = kPlanes > 1 ? 3 : 2;
  if (along == Along::depth)
    return make_tensor_map(
        map, {m.data, kElement, kRank, {depth, m.rows, kPlanes}, {1, m.stride, m.plane}}, {kDepth, tile_rows, 1},
        kSwizzle);
  return make_tensor_map(
      map, {m.data, kElement, kRank, {m.rows, depth, kPlanes}, {1, m.stride, m.plane}}, {kPanelRows, kDepth, 1},
      kSwizzle);
}

}  // namespace lossk::head
