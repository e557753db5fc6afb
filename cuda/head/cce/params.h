// The exact backward of cross-entropy by recomputation, a chunk of the vocabulary at a time.
#pragma once
#include "device/platform.h"

namespace lossk::head {

// Gradients of sum_i coef_i (lse_i - z_i,target_i), z = input linear_weight^T: with
//   dlogits [N, chunk] = coef (softmax(z) - onehot(target)), rounded to the operands' type,
//   d weight's rows of the chunk = dlogits^T input, d input += dlogits linear_weight's rows of the chunk.
// Each element of a gradient is summed by one block in one order and rounded once.
struct CceBackwardParams {
  const void* input;      // [N, D], rows contiguous and aligned to 16 bytes, as linear_weight's
  const void* weight;     // [V, D]
  const int64_t* target;  // [N]; outside [0, V): none
  const float* lse;       // [N]
  const float* coef;      // [N]; where 0, the row has no gradient whatever its lse
  void* dlogits;          // [N, chunk], scratch, aligned to 16 bytes
  float* input_sum;       // [N, D], scratch; may be null where one chunk has the whole vocabulary
  void* grad_input;       // [N, D] of the operands' type, or null: not wanted
  void* grad_weight;      // [V, D], the same
  int n, v, d;            // d a multiple of 8
  int chunk;              // columns, a multiple of 8
};

// cudaErrorInvalidValue where a condition above does not hold. `type`: bf16 or fp16.
[[nodiscard]] cudaError_t cce_backward(const CceBackwardParams& p, device::Element type, cudaStream_t stream);
[[nodiscard]] cudaError_t cce_backward_sm90(const CceBackwardParams& p, device::Element type, cudaStream_t stream);

}  // namespace lossk::head
