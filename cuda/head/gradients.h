// What the head's backwards share: their coefficients checked, and the tensors of their gradients.
#pragma once
#include "head/operands.h"

namespace lossk::head {

// float32, on input's device, of this shape; keeps alive what its pointer points to.
inline Optional<float> coefficients(
    const Operands& x, const char* name, const std::optional<Tensor>& tensor, std::initializer_list<int64_t> shape) {
  if (tensor.has_value()) {
    check_tensor(x.op, name, *tensor, shape, ScalarType::Float);
    check_device(x.op, name, *tensor, x.like);
  }
  return Optional<float>(tensor);
}

struct Gradients {  // [0] where not wanted
  Tensor input, weight, bias, scale;
};

// Zeros, but for the two that `backward` writes whole where it computes anything.
inline Gradients gradient_tensors(
    const Operands& x, const Wanted& wanted, ScalarType input_dtype, ScalarType weight_dtype) {
  const auto make = [&](bool want, std::vector<int64_t> shape, ScalarType dtype, bool written) {
    if (!want) shape = {0};
    return written ? x.scratch(shape, dtype) : lossk::zeros(x.op, x.like, shape, dtype);
  };
  const bool computed = x.n > 0 && x.v > 0;
  return {
      make(wanted.input, {x.n, x.d}, input_dtype, computed), make(wanted.weight, {x.v, x.d}, weight_dtype, computed),
      make(wanted.bias, {x.v}, ScalarType::Float, false), make(wanted.scale, {x.n}, ScalarType::Float, false)};
}

// By recomputation, a part of the vocabulary at a time.
void backward(Operands& x, const Coefs& coefs, bool full, const Wanted& wanted, const Gradients& grads);

constexpr int kSpan = 256;  // columns that one block does in order: a multiple of every tile's

// As many columns as fit the workspace: few of them make short sums for d input, read and written again each time.
inline int columns_at_a_time(const Operands& x) {
  const int64_t fit = kWorkspaceBytes / (2 * int64_t{x.planes()} * std::max(x.n, 1)) / kSpan * kSpan;
  return static_cast<int>(std::clamp<int64_t>(fit, kSpan, x.most_columns(kSpan)));
}

}  // namespace lossk::head
