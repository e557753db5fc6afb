// linear_stats and its backward on a GPU, schemas in cpp/ops.cpp.
#include "head/gradients.h"
#include "head/statistics.h"

namespace lossk::head {

void backward(Operands& x, const Coefs& coefs, bool full, const Wanted& wanted, const Gradients& grads) {
  if (x.n == 0 || x.v == 0 || !wanted.any()) return;
  const int most = columns_at_a_time(x);
  const auto parts_of_row = [&](int columns) { return x.path.parts * ceil_div(columns, kSpan); };
  const int widest = std::max(most, columns_at_the_end(x, &grads.weight, 0));
  FromDlogits products(x, wanted, grads, most, parts_of_row(widest));
  products.find_units(coefs, full);
  for (int first = 0, count = 0; first < x.v; first += count) {
    const Room& room = products.begin(first);
    count = room.columns;
    const Matrix weight = x.weight(first, count);
    x.run(x.path.dlogits(
        {.product = {x.input(), weight, x.d, kSpan, x.head.rows_there},
         .head = x.part(first, count),
         .coefs = coefs,
         .unit = products.unit(),
         .out = room.dlogits,
         .stride = room.stride,
         .row_sums = products.row_sums()},
        x.type, full, x.device.stream));
    products.add(first, weight, parts_of_row(count));
  }
}

namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> linear_stats(
    const Tensor& input, const Tensor& linear_weight, const std::optional<Tensor>& linear_bias,
    const std::optional<Tensor>& scale, const std::optional<Tensor>& index, const std::optional<Tensor>& aux,
    const std::optional<Tensor>& active, double softcap, double margin, bool full, double tau, bool) {
  const char* op = "linear_stats";
  check(tau >= 0 && tau < 1, op, ": tau must be in (0, 1), or 0 for an exact backward, got ", tau);
  Operands x({op, input, linear_weight, linear_bias, scale, index, aux, active, softcap, margin});
  x.lay_out_input();
  const Statistics s = statistics(x, full, tau > 0);
  return {s.stats, s.logits, s.logp, s.argmax, s.sketch};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> linear_stats_backward(
    const Tensor& input, const Tensor& linear_weight, const std::optional<Tensor>& linear_bias,
    const std::optional<Tensor>& scale, const std::optional<Tensor>& index, const std::optional<Tensor>& aux,
    const std::optional<Tensor>& active, double softcap, double margin, const Tensor& lse,
    const std::optional<Tensor>& lse_excl, const Tensor& row_coef, const std::optional<Tensor>& index_coef,
    std::vector<bool> needs_grad, bool weight_grad_fp32) {
  const char* op = "linear_stats_backward";
  const Wanted wanted(op, needs_grad);
  Operands x({op, input, linear_weight, linear_bias, scale, index, aux, active, softcap, margin});
  const bool full = row_coef.dim() == 2 && row_coef.size(0) == 6;
  const auto lse_of = coefficients(x, "lse", lse, {2, x.n}), excl_of = coefficients(x, "lse_excl", lse_excl, {2, x.n});
  const auto coef_of = coefficients(x, "row_coef", row_coef, {full ? 6 : 1, x.n});
  const auto pick_of = coefficients(x, "index_coef", index_coef, {x.n, x.k});
  const ScalarType dtype = input.scalar_type();
  const Gradients grads = gradient_tensors(x, wanted, dtype, weight_grad_fp32 ? ScalarType::Float : dtype);
  backward(x, {lse_of.data, excl_of.data, coef_of.data, pick_of.data, x.n}, full, wanted, grads);
  return {grads.input, grads.weight, grads.bias, grads.scale};
}

std::tuple<Tensor, Tensor> harmonic_stats(
    const Tensor& input, const Tensor& linear_weight, const Tensor& rows, const Tensor& columns, const Tensor& index,
    const std::optional<Tensor>& active, std::string kind, double power, bool dense, double tau, bool) {
  const char* op = "harmonic_stats";
  check(tau >= 0 && tau < 1, op, ": tau must be in (0, 1), or 0 for an exact backward, got ", tau);
  check(!dense || tau == 0, op, ": tau must be 0 where the sums of z are wanted, got ", tau);
  const PointArgs points(op, input, linear_weight, rows, columns, index, active, kind, power);
  Operands x(points.head);
  x.lay_out_input();
  const Statistics s = statistics(x, false, tau > 0, dense);
  return {s.stats, s.sketch};
}

std::tuple<Tensor, Tensor> harmonic_backward(
    const Tensor& input, const Tensor& linear_weight, const Tensor& rows, const Tensor& columns, const Tensor& index,
    const std::optional<Tensor>& active, std::string kind, double power, const Tensor& lse, const Tensor& row_coef,
    const Tensor& index_coef, std::vector<bool> needs_grad, bool weight_grad_fp32) {
  const char* op = "harmonic_backward";
  const Wanted wanted(op, of_points(op, needs_grad));
  const std::optional<Tensor> pick_coef(index_coef);
  const PointArgs points(op, input, linear_weight, rows, columns, index, active, kind, power);
  Operands x(points.head);
  const auto lse_of = coefficients(x, "lse", lse, {2, x.n});
  const Tensor coefs = with_dense(x, row_coef);
  const auto pick_of = coefficients(x, "index_coef", pick_coef, {x.n, x.k});
  const ScalarType dtype = input.scalar_type();
  const Gradients grads = gradient_tensors(x, wanted, dtype, weight_grad_fp32 ? ScalarType::Float : dtype);
  backward(x, {lse_of.data, nullptr, data<float>(coefs), pick_of.data, x.n}, false, wanted, grads);
  return {grads.input, grads.weight};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lossk, LOSSK_DISPATCH, m) {
  m.impl("linear_stats", TORCH_BOX(&linear_stats));
  m.impl("linear_stats_backward", TORCH_BOX(&linear_stats_backward));
  m.impl("harmonic_stats", TORCH_BOX(&harmonic_stats));
  m.impl("harmonic_backward", TORCH_BOX(&harmonic_backward));
}

}  // namespace lossk::head
