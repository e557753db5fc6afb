// Log-sum-exp of a vocabulary head's logits, z = input linear_weight^T, and the logit of each row's target.
#pragma once
#include "device/platform.h"

namespace lossk::head {

struct Partial {  // of some of a row's logits: sum exp(z - max)
  float max, sum;
};

struct LseParams {
  const void* input;      // [N, D], rows contiguous and aligned to 16 bytes, as linear_weight's
  const void* weight;     // [V, D]
  const int64_t* target;  // [N]; outside [0, V): target_logit is nan
  Partial* partial;       // [2 segments, N], scratch
  float* lse;             // [N]
  float* target_logit;    // [N]
  int n, v, d;            // d a multiple of 8
  int segment;            // columns that one block sums up in order, a multiple of 256: all that the result depends on
};

// cudaErrorInvalidValue where a condition above does not hold. `type`: bf16 or fp16.
[[nodiscard]] cudaError_t lse(const LseParams& p, device::Element type, cudaStream_t stream);       // sm_80 and later
[[nodiscard]] cudaError_t lse_sm90(const LseParams& p, device::Element type, cudaStream_t stream);  // Hopper

}  // namespace lossk::head
