#include "head/lse/launch.h"
#include "head/lse/merge.cuh"
#include "head/product/launch_mma.h"

namespace lossk::head {

cudaError_t merge_segments(const LseParams& p, int parts, cudaStream_t stream) {
  if (p.n == 0) return cudaSuccess;
  return device::launch(
      lse_merge, {ceil_div(p.n, kMergeThreads), kMergeThreads, 0, stream}, p, parts * ceil_div(p.v, p.segment));
}

cudaError_t lse(const LseParams& p, Element type, cudaStream_t stream) {
  if (element_bytes(type) != 2) return cudaErrorInvalidValue;
  const auto multiply = type == Element::bf16 ? multiply_mma_sync<Bf16, Along::depth, Along::depth, LseEpilogue>
                                              : multiply_mma_sync<Fp16, Along::depth, Along::depth, LseEpilogue>;
  const auto error = multiply(logits_product(p), p, stream);
  return error != cudaSuccess ? error : merge_segments(p, MmaConfig::kParts, stream);
}

}  // namespace lossk::head
