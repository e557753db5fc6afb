// The gradient in the forward: a band of rows has its logits kept until lse is known, and becomes dlogits without
// another product.
#pragma once
#include "head/gradient/params.h"
#include "head/stats/params.h"

namespace lossk::head {

// dlogits.product is not looked at: its rows and columns are the head's. `dlogits.row_sums`: [spans of kKeptSpan,
// rows].
struct KeptDlogitsParams {
  DlogitsParams dlogits;
  KeptParams kept;
};
constexpr int kKeptSpan = 512;

// For bf16 and fp16.
[[nodiscard]] cudaError_t kept_dlogits(
    const KeptDlogitsParams& p, device::Element type, bool full, cudaStream_t stream);

}  // namespace lossk::head
