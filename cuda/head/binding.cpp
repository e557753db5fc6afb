// linear_stats and its backward on a GPU, schemas in cpp/ops.cpp.
#include "head/gradients.h"
#include "head/statistics.h"

namespace lossk::head {

using device::Element;

void backward(Operands& x, const Coefs& coefs, bool full, const Wanted& wanted, const Gradients& grads) {
  if (x.n == 0 || x.v == 0 || !wanted.any()) return;
  const bool same = grads.input.scalar_type() == x.like.scalar_type();
  x.lay_out_input(wanted.input && same ? std::optional(grads.input) : std::nullopt);
  const int most = columns_at_a_time(x), stride = std::min(most, round_up(x.v, 8));
  Tensor out = x.scratch({x.planes(), x.n, stride}, x.type == Element::fp16 ? ScalarType::Half : ScalarType::BFloat16);
  Tensor sum = x.scratch({wanted.input && most < x.v ? x.n : 0, x.d}, ScalarType::Float);
  Tensor row_sums = x.scratch({wanted.scale ? x.path.parts * ceil_div(most, kSpan) : 0, x.n}, ScalarType::Float);
  Matrix input_by_columns = x.input_by_columns();
  const bool by_units = x.type == Element::fp16;
  Tensor unit = x.scratch({by_units ? x.n + 1 : 0}, ScalarType::Float);
  Tensor times = x.scratch({by_units ? x.n : 0}, ScalarType::Float);
  const float* by = by_units ? data<float>(unit) : nullptr;
  if (by_units) {
    x.run(find_units({x.head, coefs, full, data<float>(unit), data<float>(times)}, x.device.stream));
    if (wanted.weight) input_by_columns = x.input_by_columns(data<float>(times));
  }

  for (int first = 0; first < x.v; first += most) {
    const int count = std::min(most, x.v - first);
    const Matrix weight = x.weight(first, count);
    x.run(x.path.dlogits(
        {.product = {x.input(), weight, x.d, kSpan, x.head.rows_there},
         .head = x.part(first, count),
         .coefs = coefs,
         .unit = by,
         .out = out.data_ptr(),
         .stride = stride,
         .row_sums = wanted.scale ? data<float>(row_sums) : nullptr},
        x.type, full, x.device.stream));
    const int64_t plane = int64_t{x.n} * stride;
    if (wanted.weight) {
      const bool wide = grads.weight.scalar_type() == ScalarType::Float;
      x.run(x.path.store(
          {.product = {{out.data_ptr(), count, stride, plane}, input_by_columns, x.n, kSpan, {}, x.head.rows_there},
           .out = static_cast<char*>(grads.weight.data_ptr()) +
                  int64_t{first} * x.d * bytes_of(grads.weight.scalar_type()),
           .wide = wide,
           .unit = by ? by + x.n : nullptr,
           .rows = count,
           .columns = x.d,
           .first = true,
           .last = true},
          x.type, Along::rows, x.device.stream));
    }
    if (wanted.bias)
      x.run(column_sums(
          {out.data_ptr(), x.n, stride, count, x.head.rows_there, by, data<float>(grads.bias) + first}, x.type,
          x.device.stream));
    if (wanted.scale)
      x.run(add_row_sums(
          {data<float>(row_sums), x.path.parts * ceil_div(count, kSpan), x.n, x.head.ids, x.head.rows_there, by,
           data<float>(grads.scale)},
          x.device.stream));
    if (wanted.input) {
      const bool last = first + count == x.v;
      Tensor whole = grads.input;
      // Rows that are not there get nothing from the product. Input's may lie here, but nobody reads them any more.
      if (last && x.head.ids) torch::stable::zero_(whole);
      x.run(x.path.store(
          {.product =
               {{out.data_ptr(), x.n, stride, plane},
                {weight.data, x.d, weight.stride, weight.plane},
                count,
                kSpan,
                x.head.rows_there},
           .out = grads.input.data_ptr(),
           .wide = grads.input.scalar_type() == ScalarType::Float,
           .sum = data<float>(sum),
           .ids = x.head.ids,
           .count = x.head.rows_there,
           .unit = by,
           .unit_by_row = true,
           .rows = x.n,
           .columns = x.d,
           .first = first == 0,
           .last = last},
          x.type, Along::depth, x.device.stream));
    }
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

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lossk, LOSSK_DISPATCH, m) {
  m.impl("linear_stats", TORCH_BOX(&linear_stats));
  m.impl("linear_stats_backward", TORCH_BOX(&linear_stats_backward));
}

}  // namespace lossk::head
