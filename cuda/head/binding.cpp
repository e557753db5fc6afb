// linear_stats and its backward on a GPU, schemas in cpp/ops.cpp.
#include "head/gradients.h"
#include "head/statistics.h"

namespace lossk::head {

void backward(
    Operands& x, const Coefs& coefs, bool full, const Wanted& wanted, const Gradients& grads, const Kept& kept) {
  if (x.n == 0 || x.v == 0 || !wanted.any()) return;
  // d scale wants the logits without their scale, which nobody has kept.
  const int ready = wanted.scale ? 0 : kept.columns;
  int most = columns_at_a_time(x);
  // A part ends where those that are kept do: not all of the vocabulary is one.
  if (ready > 0 && ready < x.v) most = std::min(most, std::max(ready, round_up(x.v - ready, kSpan)));
  const auto parts_of_row = [&](int columns) { return x.path.parts * ceil_div(columns, kSpan); };
  const int widest = std::max(most, columns_at_the_end(x, &grads.weight, 0));
  FromDlogits products(x, wanted, grads, most, parts_of_row(widest));
  products.find_units(coefs, full);
  for (int first = 0, count = 0; first < x.v; first += count) {
    const Room& room = products.begin(first, first < ready ? ready : x.v);
    count = room.columns;
    const Matrix weight = x.weight(first, count);
    const DlogitsParams dlogits{
        .product = {x.input(), weight, x.d, kSpan, x.head.rows_there},
        .head = x.part(first, count),
        .coefs = coefs,
        .unit = products.unit(),
        .out = room.dlogits,
        .stride = room.stride,
        .row_sums = products.row_sums()};
    x.run(
        first < ready
            ? kept_dlogits({dlogits, {kept.logits, kept.columns, first}, kept.picked}, x.type, full, x.device.stream)
            : x.path.dlogits(dlogits, x.type, full, x.device.stream));
    products.add(first, weight, parts_of_row(count));
  }
}

namespace {

// For a backward that does not multiply for the logits of the first `keep` columns again.
void check_keep(const Operands& x, int64_t keep, double tau) {
  if (keep == 0) return;
  const int segment = segment_of(x.v);
  check(
      keep == x.v || (keep > 0 && keep < x.v && keep % segment == 0), x.op, ": keep must be 0, ", x.v,
      " or a multiple of ", segment, " less than that, got ", keep);
  check(
      x.type != device::Element::fp32 && x.head.softcap.cap == 0 && tau == 0, x.op,
      ": keep must be 0 with float32, with softcap and with tau, got ", keep);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> linear_stats(
    const Tensor& input, const Tensor& linear_weight, const std::optional<Tensor>& linear_bias,
    const std::optional<Tensor>& scale, const std::optional<Tensor>& index, const std::optional<Tensor>& aux,
    const std::optional<Tensor>& active, double softcap, double margin, bool full, double tau, bool, int64_t keep) {
  const char* op = "linear_stats";
  check(tau >= 0 && tau < 1, op, ": tau must be in (0, 1), or 0 for an exact backward, got ", tau);
  Operands x({op, input, linear_weight, linear_bias, scale, index, aux, active, softcap, margin});
  check_keep(x, keep, tau);
  x.lay_out_input();
  const Statistics s = statistics(x, full, {tau > 0, static_cast<int>(keep)});
  return {s.stats, s.logits, s.logp, s.argmax, s.sketch, s.kept};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> linear_stats_backward(
    const Tensor& input, const Tensor& linear_weight, const std::optional<Tensor>& linear_bias,
    const std::optional<Tensor>& scale, const std::optional<Tensor>& index, const std::optional<Tensor>& aux,
    const std::optional<Tensor>& active, double softcap, double margin, const Tensor& lse,
    const std::optional<Tensor>& lse_excl, const Tensor& row_coef, const std::optional<Tensor>& index_coef,
    const std::optional<Tensor>& logits, const std::optional<Tensor>& kept, int64_t keep, std::vector<bool> needs_grad,
    bool weight_grad_fp32) {
  const char* op = "linear_stats_backward";
  const Wanted wanted(op, needs_grad);
  Operands x({op, input, linear_weight, linear_bias, scale, index, aux, active, softcap, margin});
  const bool full = row_coef.dim() == 2 && row_coef.size(0) == 6;
  const auto lse_of = coefficients(x, "lse", lse, {2, x.n}), excl_of = coefficients(x, "lse_excl", lse_excl, {2, x.n});
  const auto coef_of = coefficients(x, "row_coef", row_coef, {full ? 6 : 1, x.n});
  const auto pick_of = coefficients(x, "index_coef", index_coef, {x.n, x.k});
  check_keep(x, keep, 0);
  Kept of_forward{};
  const auto picked = coefficients(x, "logits", logits, {x.n, x.k});
  if (keep > 0) {
    check(kept.has_value() && (logits.has_value() || x.k == 0), op, ": kept and logits must be given with keep");
    check_tensor(op, "kept", *kept, {x.n, kept_line(keep)}, ScalarType::Short);
    check_device(op, "kept", *kept, x.like);
    check(kept->is_contiguous(), op, ": kept must be contiguous");
    of_forward = {kept->data_ptr(), static_cast<int>(keep), picked.data};
  }
  const ScalarType dtype = input.scalar_type();
  const Gradients grads = gradient_tensors(x, wanted, dtype, weight_grad_fp32 ? ScalarType::Float : dtype);
  backward(x, {lse_of.data, excl_of.data, coef_of.data, pick_of.data, x.n}, full, wanted, grads, of_forward);
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
  const Statistics s = statistics(x, false, {.sketch = tau > 0}, dense);
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
