// linear_divergence and its backward on a GPU, schemas in cpp/ops.cpp.
#include "head/comparing.h"
#include "head/statistics.h"

namespace lossk::head {
namespace {

// The two heads of a call.
struct Heads {
  Operands z, u;
  Compare kind;
  float beta;

  Heads(const HeadArgs& student, const HeadArgs& teacher, const std::string& kind_name, double b)
      : z(student), u(teacher), kind(compare_of(student.op, kind_name, true)), beta(static_cast<float>(b)) {
    check(u.n == z.n, z.op, ": teacher_input must have ", z.n, " rows, got ", u.n);
    check(u.v == z.v, z.op, ": teacher_weight must have ", z.v, " rows, got ", u.v);
    check_device(z.op, "teacher_input", u.like, z.like);
  }
  Comparing comparing(const float* lse_z, const float* lse_u) {
    return {z, &u, kind, beta, nullptr, nullptr, lse_z, lse_u};
  }
};

Tensor linear_divergence(
    const Tensor& input, const Tensor& linear_weight, const std::optional<Tensor>& linear_bias,
    const std::optional<Tensor>& scale, const Tensor& teacher_input, const Tensor& teacher_weight,
    const std::optional<Tensor>& teacher_bias, const std::optional<Tensor>& teacher_scale,
    const std::optional<Tensor>& active, double softcap, double teacher_softcap, std::string kind, double beta) {
  const char* op = "linear_divergence";
  Heads h(
      {op, input, linear_weight, linear_bias, scale, kAbsent, kAbsent, active, softcap, 0},
      {op, teacher_input, teacher_weight, teacher_bias, teacher_scale, kAbsent, kAbsent, active, teacher_softcap, 0},
      kind, beta);
  Tensor stats = h.z.zeros({6, h.z.n}, ScalarType::Float);
  if (h.z.n == 0 || h.z.v == 0) return stats;
  h.z.lay_out_input();
  h.u.lay_out_input();
  std::optional<Tensor> of_z, of_u;
  if (of_probabilities(h.kind) && !in_one_pass(h.kind)) {
    of_z = statistics(h.z, false).stats;
    of_u = statistics(h.u, false).stats;
  }
  const Comparing c = h.comparing(of_z ? data<float>(*of_z) : nullptr, of_u ? data<float>(*of_u) : nullptr);
  compare_logits(c, data<float>(stats), data<float>(stats) + 4 * int64_t{h.z.n});
  return stats;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> linear_divergence_backward(
    const Tensor& input, const Tensor& linear_weight, const std::optional<Tensor>& linear_bias,
    const std::optional<Tensor>& scale, const Tensor& teacher_input, const Tensor& teacher_weight,
    const std::optional<Tensor>& teacher_bias, const std::optional<Tensor>& teacher_scale,
    const std::optional<Tensor>& active, double softcap, double teacher_softcap, std::string kind, double beta,
    const Tensor& stats, const Tensor& row_coef, std::vector<bool> needs_grad, std::vector<bool> weight_grad_fp32) {
  const char* op = "linear_divergence_backward";
  check(needs_grad.size() == 8, op, ": needs_grad must have 8 entries, got ", needs_grad.size());
  check(weight_grad_fp32.size() == 2, op, ": weight_grad_fp32 must have 2 entries, got ", weight_grad_fp32.size());
  Heads h(
      {op, input, linear_weight, linear_bias, scale, kAbsent, kAbsent, active, softcap, 0},
      {op, teacher_input, teacher_weight, teacher_bias, teacher_scale, kAbsent, kAbsent, active, teacher_softcap, 0},
      kind, beta);
  const int64_t n = h.z.n;
  const auto stats_of = coefficients(h.z, "stats", stats, {6, n});
  const auto coef_of = coefficients(h.z, "row_coef", row_coef, {n});
  const auto side = [&](const Operands& x, int i) {
    const Wanted wanted(op, {needs_grad.begin() + 4 * i, needs_grad.begin() + 4 * i + 4});
    const ScalarType dtype = x.like.scalar_type();
    return SideGradients{wanted, gradient_tensors(x, wanted, dtype, weight_grad_fp32[i] ? ScalarType::Float : dtype)};
  };
  const SideGradients of_z = side(h.z, 0), of_u = side(h.u, 1);
  compare_backward(h.comparing(stats_of.data, stats_of.data + 2 * n), stats_of.data + 4 * n, coef_of.data, of_z, &of_u);
  return {of_z.grads.input, of_z.grads.weight, of_z.grads.bias, of_z.grads.scale,
          of_u.grads.input, of_u.grads.weight, of_u.grads.bias, of_u.grads.scale};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lossk, LOSSK_DISPATCH, m) {
  m.impl("linear_divergence", TORCH_BOX(&linear_divergence));
  m.impl("linear_divergence_backward", TORCH_BOX(&linear_divergence_backward));
}

}  // namespace lossk::head
