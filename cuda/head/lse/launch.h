// What both launchers do.
#pragma once
#include "head/lse/params.h"
#include "head/product/launch.h"

namespace lossk::head {

[[nodiscard]] inline Product logits_product(const LseParams& p) {
  return {{p.input, p.n, p.d}, {p.weight, p.v, p.d}, p.d, p.segment};
}

// The last kernel of both, after `parts` of each segment.
[[nodiscard]] cudaError_t merge_segments(const LseParams& p, int parts, cudaStream_t stream);

}  // namespace lossk::head
