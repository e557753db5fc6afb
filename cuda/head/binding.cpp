// linear_stats, its backward and cce_forward on a GPU, schemas in cpp/ops.cpp.
#include <tuple>

#include "head/columns.h"
#include "head/gradients.h"

namespace lossk::head {
namespace {

using device::Element;

// ---- forward --------------------------------------------------------------------------------------------------------

// What the sketch is made relative to: an estimate of each row's lse from a thirty-second of the vocabulary. The
// columns that rows pick often hold most of the mass of most rows, and an even sample of the others tells the rest.
Tensor estimated_lse(Operands& x) {
  const int most = round_up(ceil_div(x.v, 64), 2 * kColumnsInSegment), segment = segment_of(most);
  Tensor picked = x.zeros({x.v}, ScalarType::Int), counts = x.scratch({3, ceil_div(x.v, kChunk)}, ScalarType::Int);
  Tensor ids = x.scratch({3, x.v}, ScalarType::Int), count = x.scratch({3}, ScalarType::Int);
  auto* marks = reinterpret_cast<uint32_t*>(data<int>(picked));
  x.run(mark_sample({x.index, x.head, most, marks}, x.device.stream));
  x.run(list_sample({marks, x.v, most, data<int>(counts), {data<int>(ids), data<int>(count)}}, x.device.stream));

  const int parts = x.path.parts * ceil_div(most, segment);
  Tensor partial = x.scratch({3, parts, x.n, 2}, ScalarType::Float), reference = x.scratch({x.n}, ScalarType::Float);
  Tensor unused = x.scratch({x.n, x.k}, ScalarType::Float);
  GatheredColumns columns(x, most, most, x.head.margin != 0);
  for (int list = 0; list < 3; ++list) {
    columns.open(data<int>(ids) + int64_t{list} * x.v, data<int>(count) + list, 0, x.n);
    const Head part = columns.part(0);
    x.run(x.path.stats(
        {.product = {x.input(), columns.weight(0), x.d, segment, x.head.rows_there, {}, part.columns_there},
         .head = part,
         .partial = data<float>(partial),
         .picked = data<float>(unused),
         .first_part = list * parts},
        x.type, false, x.device.stream));
  }
  x.run(estimate_lse(
      {reinterpret_cast<const Partial*>(data<float>(partial)), parts, x.path.parts, segment, data<int>(count), x.head,
       data<float>(reference)},
      x.device.stream));
  return reference;
}

struct Statistics {
  Tensor stats, logits, logp, argmax, sketch, aux_sum;
};

Statistics statistics(Operands& x, bool full, bool sketched) {
  const int64_t n = x.n, k = x.k;
  Statistics out{
      .stats = x.zeros({full ? 12 : 3, n}, ScalarType::Float),
      .logits = x.zeros({n, k}, ScalarType::Float),
      .logp = x.zeros({n, k}, ScalarType::Float),
      .argmax = x.zeros({full ? n : 0}, ScalarType::Long),
      .sketch = x.zeros({sketched ? ceil_div<int64_t>(n, kSketchRows) : 0, x.v}, ScalarType::BFloat16),
      .aux_sum = x.zeros({1}, ScalarType::Double)};
  if (full) x.run(sum_aux({x.head.aux, x.v, data<double>(out.aux_sum)}, x.device.stream));
  const int segment = segment_of(x.v), parts = x.path.parts * ceil_div(x.v, segment);
  const int64_t floats = (full ? sizeof(RowState<float>) : sizeof(Partial)) / sizeof(float);
  Tensor partial = x.scratch({parts, n, floats}, ScalarType::Float);
  // Rows without columns have no sketch either.
  sketched = sketched && x.v > 0;
  Tensor slopes = x.scratch({sketched && !full && x.head.softcap > 0 ? parts : 0, n}, ScalarType::Float);
  SketchParams sketch{};
  std::optional<Tensor> reference;
  if (sketched) {
    reference = estimated_lse(x);
    sketch = {
        data<float>(*reference), reinterpret_cast<uint16_t*>(out.sketch.data_ptr()), x.v,
        slopes.numel() ? data<float>(slopes) : nullptr};
  }
  const int most = x.most_columns(segment);
  for (int first = 0; first < x.v; first += most) {
    const int count = std::min(most, x.v - first);
    x.run((sketched ? x.path.sketch : x.path.stats)(
        {.product = {x.input(), x.weight(first, count), x.d, segment, x.head.rows_there},
         .head = x.part(first, count),
         .partial = partial.data_ptr(),
         .picked = data<float>(out.logits),
         .first_part = x.path.parts * (first / segment),
         .sketch = sketch},
        x.type, full, x.device.stream));
  }
  x.run(merge_stats(
      {.partial = partial.data_ptr(),
       .parts = parts,
       .head = x.head,
       .index = x.index,
       .aux_sum = data<double>(out.aux_sum),
       .stats = data<float>(out.stats),
       .picked = data<float>(out.logits),
       .logp = data<float>(out.logp),
       .argmax = data<int64_t>(out.argmax),
       .slopes = sketch.slopes},
      full, x.device.stream));
  if (sketch.sums)
    x.run(scale_sketch(
        {partial.data_ptr(), full, parts, x.path.parts, segment, x.head, data<float>(out.stats), sketch.sums},
        x.device.stream));
  return out;
}

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

// ---- backward -------------------------------------------------------------------------------------------------------

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

// ---- the loss and its gradient --------------------------------------------------------------------------------------

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
  const Statistics s = statistics(x, full, false);
  Tensor loss = x.scratch({}, ScalarType::Float);
  Tensor row_coef = lossk::zeros(op, input, {full ? 6 : 1, x.n}, ScalarType::Float);
  x.run(sum_loss(
      {.stats = data<float>(s.stats),
       .picked = data<float>(s.logits),
       .coef = loss_of.data,
       .pick_coef = pick_of.data,
       .index = x.index,
       .aux_sum = data<double>(s.aux_sum),
       .head = x.head,
       .full = full,
       .loss = data<float>(loss),
       .row_coef = data<float>(row_coef)},
      x.device.stream));
  const Gradients grads = gradient_tensors(x, wanted, ScalarType::Float, ScalarType::Float);
  const Coefs coefs{data<float>(s.stats), nullptr, data<float>(row_coef), pick_of.data, x.n};
  backward(x, coefs, full, wanted, grads);
  Tensor lse = torch::stable::clone(torch::stable::select(s.stats, 0, 0));
  return {loss, lse, grads.input, grads.weight, grads.bias, grads.scale};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lossk, LOSSK_DISPATCH, m) {
  m.impl("linear_stats", TORCH_BOX(&linear_stats));
  m.impl("linear_stats_backward", TORCH_BOX(&linear_stats_backward));
  m.impl("cce_forward", TORCH_BOX(&cce_forward));
}

}  // namespace lossk::head
