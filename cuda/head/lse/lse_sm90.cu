#include "head/lse/launch.h"
#include "head/lse/lse.cuh"
#include "head/product/launch_wgmma.h"

namespace lossk::head {

cudaError_t lse_sm90(const LseParams& p, Element type, cudaStream_t stream) {
  if (element_bytes(type) != 2) return cudaErrorInvalidValue;
  if (p.v == 0 || p.d == 0) return lse(p, type, stream);
  const auto multiply = type == Element::bf16 ? multiply_wgmma<Bf16, Along::depth, Along::depth, LseEpilogue>
                                              : multiply_wgmma<Fp16, Along::depth, Along::depth, LseEpilogue>;
  const auto error = multiply(logits_product(p), p, stream);
  return error != cudaSuccess ? error : merge_segments(p, WgmmaConfig::kParts, stream);
}

}  // namespace lossk::head
