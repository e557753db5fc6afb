// What linear_divergence and linear_pairwise share: a head's logits beside a second head's, or beside numbers.
#pragma once
#include "head/raw_logits.h"

namespace lossk::head {

struct Comparing {
  Operands& z;
  Operands* u;  // null: numbers
  Compare kind;
  float beta;
  const float* offset;  // as Compared has it, and skip
  const int64_t* skip;
  const float *lse_z, *lse_u;  // [2, N], where the kind wants them known
};

// Both heads' inputs are laid out; there are rows and columns. `lse` [4, N] or null, `sums` [2, N].
void compare_logits(const Comparing& c, float* lse, float* sums);

struct SideGradients {
  Wanted wanted;
  Gradients grads;
};
// Of sum_i coef[i] times the sum of the kind, from what compare_logits said; `sums` and `of_u`: null without a second
// head.
void compare_backward(
    const Comparing& c, const float* sums, const float* coef, const SideGradients& of_z, const SideGradients* of_u);

}  // namespace lossk::head
