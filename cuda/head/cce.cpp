// cce_forward and harmonic_forward on a GPU, schemas in cpp/ops.cpp: the loss, and its gradient by recomputation.
// Python takes them on a CPU; what saves a product here is linear_stats' `keep`.
#include "head/gradients.h"
#include "head/statistics.h"

namespace lossk::head {
namespace {

struct LossCoefs {
  const float *loss, *pick;
  bool full;
};

struct Loss {
  Tensor loss, row_coef;
};

// `rows` of coefficients.
Loss sum_of_rows(const Operands& x, const Statistics& s, const LossCoefs& c, int rows) {
  const Loss l{x.scratch({}, ScalarType::Float), x.zeros({rows, x.n}, ScalarType::Float)};
  const LossParams params{
      .stats = data<float>(s.stats),
      .picked = data<float>(s.logits),
      .coef = c.loss,
      .pick_coef = c.pick,
      .index = x.index,
      .aux_sum = data<double>(s.aux_sum),
      .head = x.head,
      .full = c.full,
      .loss = data<float>(l.loss),
      .row_coef = data<float>(l.row_coef)};
  x.run(sum_loss(params, x.device.stream));
  return l;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> cce_forward(
    const Tensor& input, const Tensor& linear_weight, const std::optional<Tensor>& linear_bias,
    const std::optional<Tensor>& scale, const Tensor& index, const std::optional<Tensor>& aux,
    const std::optional<Tensor>& active, double softcap, double margin, const Tensor& loss_coef,
    const Tensor& index_coef, std::vector<bool> needs_grad) {
  const char* op = "cce_forward";
  const Wanted wanted(op, needs_grad);
  const std::optional<Tensor> picks(index);
  Operands x({op, input, linear_weight, linear_bias, scale, picks, aux, active, softcap, margin});
  const bool full = loss_coef.dim() == 2 && loss_coef.size(0) == 3;
  const auto loss_of = coefficients(x, "loss_coef", loss_coef, {full ? 3 : 2, x.n});
  const auto pick_of = coefficients(x, "index_coef", index_coef, {x.n, x.k});
  x.lay_out_input();
  const Gradients grads = gradient_tensors(x, wanted, ScalarType::Float, ScalarType::Float);
  const Statistics s = statistics(x, full);
  const Loss l = sum_of_rows(x, s, {loss_of.data, pick_of.data, full}, full ? 6 : 1);
  backward(x, {data<float>(s.stats), nullptr, data<float>(l.row_coef), pick_of.data, x.n}, full, wanted, grads);
  Tensor lse = torch::stable::clone(torch::stable::select(s.stats, 0, 0));
  return {l.loss, lse, grads.input, grads.weight, grads.bias, grads.scale};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> harmonic_forward(
    const Tensor& input, const Tensor& linear_weight, const Tensor& rows, const Tensor& columns, const Tensor& index,
    const std::optional<Tensor>& active, std::string kind, double power, const Tensor& loss_coef,
    const Tensor& index_coef, std::vector<bool> needs_grad) {
  const char* op = "harmonic_forward";
  const Wanted wanted(op, of_points(op, needs_grad));
  const PointArgs points(op, input, linear_weight, rows, columns, index, active, kind, power);
  Operands x(points.head);
  const bool dense = loss_coef.dim() == 2 && loss_coef.size(0) == 3;
  const auto loss_of = coefficients(x, "loss_coef", loss_coef, {dense ? 3 : 2, x.n});
  const auto pick_of = coefficients(x, "index_coef", index_coef, {x.n, x.k});
  x.lay_out_input();
  const Gradients grads = gradient_tensors(x, wanted, ScalarType::Float, ScalarType::Float);
  const Statistics s = statistics(x, false, {}, dense);
  const Loss l = sum_of_rows(x, s, {loss_of.data, pick_of.data, dense}, 2);
  backward(x, {data<float>(s.stats), nullptr, data<float>(l.row_coef), pick_of.data, x.n}, false, wanted, grads);
  Tensor lse = torch::stable::clone(torch::stable::select(s.stats, 0, 0));
  return {l.loss, lse, grads.input, grads.weight};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lossk, LOSSK_DISPATCH, m) {
  m.impl("cce_forward", TORCH_BOX(&cce_forward));
  m.impl("harmonic_forward", TORCH_BOX(&harmonic_forward));
}

}  // namespace lossk::head
