#include "head/lse/launch.h"
#include "head/lse/lse_mma.cuh"
#include "head/lse/merge.cuh"

namespace lossk::head {

cudaError_t merge_segments(const LseParams& p, cudaStream_t stream) {
  return device::launch(lse_merge, {ceil_div(p.n, kMergeThreads), kMergeThreads, 0, stream}, p);
}

cudaError_t lse(const LseParams& p, Element type, cudaStream_t stream) {
  using C = MmaConfig;
  if (!valid(p, C::kColumns) || element_bytes(type) != 2) return cudaErrorInvalidValue;
  if (p.n == 0) return cudaSuccess;
  if (p.v > 0) {
    int blocks = 0;
    if (const auto error = persistent_blocks(p, C::kRows, C::kMinBlocks, &blocks)) return error;
    const auto kernel = type == Element::bf16 ? lse_mma_sync<Bf16> : lse_mma_sync<Fp16>;
    if (const auto error = device::launch(kernel, {blocks, C::kThreads, C::kSharedBytes, stream}, p)) return error;
  }
  return merge_segments(p, stream);
}

}  // namespace lossk::head
