// linear_pairwise and its backward on a GPU, schemas in cpp/ops.cpp.
#include "head/comparing.h"

namespace lossk::head {
namespace {

// The numbers that a call compares with.
struct Numbers {
  Optional<float> offset;
  Optional<int64_t> skip;
  Numbers(const Operands& x, const Tensor& offset_tensor, const std::optional<Tensor>& skip_tensor)
      : offset(coefficients(x, "offset", offset_tensor, {2, x.n})), skip(skip_tensor) {
    if (!skip_tensor.has_value()) return;
    check_tensor(x.op, "skip", *skip_tensor, {x.n}, ScalarType::Long);
    check_device(x.op, "skip", *skip_tensor, x.like);
  }
};

Tensor linear_pairwise(
    const Tensor& input, const Tensor& linear_weight, const std::optional<Tensor>& linear_bias,
    const std::optional<Tensor>& scale, const Tensor& offset, const std::optional<Tensor>& skip,
    const std::optional<Tensor>& active, double softcap, std::string kind, double beta) {
  const char* op = "linear_pairwise";
  const Compare of = compare_of(op, kind, false);
  Operands x({op, input, linear_weight, linear_bias, scale, kAbsent, kAbsent, active, softcap, 0});
  const Numbers numbers(x, offset, skip);
  Tensor sums = x.zeros({2, x.n}, ScalarType::Float);
  if (x.n == 0 || x.v == 0) return sums;
  x.lay_out_input();
  compare_logits(
      {x, nullptr, of, static_cast<float>(beta), numbers.offset.data, numbers.skip.data, nullptr, nullptr}, nullptr,
      data<float>(sums));
  return sums;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> linear_pairwise_backward(
    const Tensor& input, const Tensor& linear_weight, const std::optional<Tensor>& linear_bias,
    const std::optional<Tensor>& scale, const Tensor& offset, const std::optional<Tensor>& skip,
    const std::optional<Tensor>& active, double softcap, std::string kind, double beta, const Tensor& row_coef,
    std::vector<bool> needs_grad, bool weight_grad_fp32) {
  const char* op = "linear_pairwise_backward";
  const Wanted wanted(op, needs_grad);
  const Compare of = compare_of(op, kind, false);
  Operands x({op, input, linear_weight, linear_bias, scale, kAbsent, kAbsent, active, softcap, 0});
  const Numbers numbers(x, offset, skip);
  const auto coef_of = coefficients(x, "row_coef", row_coef, {x.n});
  const ScalarType dtype = input.scalar_type();
  const SideGradients side{wanted, gradient_tensors(x, wanted, dtype, weight_grad_fp32 ? ScalarType::Float : dtype)};
  compare_backward(
      {x, nullptr, of, static_cast<float>(beta), numbers.offset.data, numbers.skip.data, nullptr, nullptr}, nullptr,
      coef_of.data, side, nullptr);
  return {side.grads.input, side.grads.weight, side.grads.bias, side.grads.scale};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lossk, LOSSK_DISPATCH, m) {
  m.impl("linear_pairwise", TORCH_BOX(&linear_pairwise));
  m.impl("linear_pairwise_backward", TORCH_BOX(&linear_pairwise_backward));
}

}  // namespace lossk::head
