#include "device/tensor_map.h"
#include "head/lse/launch.h"
#include "head/lse/lse_wgmma.cuh"

namespace lossk::head {

cudaError_t lse_sm90(const LseParams& p, Element type, cudaStream_t stream) {
  using C = WgmmaConfig;
  if (!valid(p, C::kColumns) || element_bytes(type) != 2) return cudaErrorInvalidValue;
  if (p.n == 0) return cudaSuccess;
  if (p.v == 0 || p.d == 0) return lse(p, type, stream);  // TMA knows no empty tensor
  TensorMap input, weight;
  const auto map = [&](TensorMap* map, const void* data, int rows, int box) {
    return make_tensor_map(map, {data, type, 2, {p.d, rows}, {1, p.d}}, {kDepth, box}, kSwizzle);
  };
  if (const auto error = map(&input, p.input, p.n, C::kRows)) return error;
  if (const auto error = map(&weight, p.weight, p.v, C::kColumns)) return error;
  int blocks = 0;
  if (const auto error = persistent_blocks(p, C::kRows, 1, &blocks)) return error;
  const auto kernel = type == Element::bf16 ? lse_wgmma<Bf16> : lse_wgmma<Fp16>;
  if (const auto error = device::launch(kernel, {blocks, C::kThreads, C::kSharedBytes, stream}, p, input, weight))
    return error;
  return merge_segments(p, stream);
}

}  // namespace lossk::head
