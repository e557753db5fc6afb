// Logits that the forward keeps, so that the backward need not multiply for them again.
#pragma once
#include "head/gradient/params.h"
#include "head/stats/params.h"

namespace lossk::head {

// dlogits.product is not looked at: its rows and columns are the head's. dlogits.row_sums is null: d scale would want
// the logits without their scale.
struct KeptDlogitsParams {
  DlogitsParams dlogits;
  KeptLogits kept;
  const float* picked;  // [N, K] as StatsParams leaves them: the picks' dlogits want every bit
};

// For bf16 and fp16, of a head without softcap, not of distances.
[[nodiscard]] cudaError_t kept_dlogits(
    const KeptDlogitsParams& p, device::Element type, bool full, cudaStream_t stream);

}  // namespace lossk::head
