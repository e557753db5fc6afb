// cce_forward on a GPU, schema in cpp/ops.cpp: the loss, and its gradient in the forward.
#include "head/gradients.h"
#include "head/statistics.h"

namespace lossk::head {
namespace {

using device::Element;

struct LossCoefs {
  const float *loss, *pick;
  bool full;
};

struct Loss {
  Tensor loss, sum, row_coef;
};

Loss loss_tensors(const Operands& x, bool full) {
  return {
      x.scratch({}, ScalarType::Float), x.scratch({1}, ScalarType::Double),
      x.zeros({full ? 6 : 1, x.n}, ScalarType::Float)};
}

LossParams loss_params(const Operands& x, const Statistics& s, const LossCoefs& c, const Head& head, const Loss& l) {
  return {
      .stats = data<float>(s.stats),
      .picked = data<float>(s.logits),
      .coef = c.loss,
      .pick_coef = c.pick,
      .index = x.index,
      .aux_sum = data<double>(s.aux_sum),
      .head = head,
      .full = c.full,
      .n = x.n,
      .first = head.first_row == 0,
      .sum = data<double>(l.sum),
      .loss = data<float>(l.loss),
      .row_coef = data<float>(l.row_coef)};
}

// Of the logits of a band of rows, in float32, and its dlogits: as many rows as fit, for every band reads and writes
// all of d weight.
#ifndef LOSSK_KEPT_BYTES  // tests want several bands from few rows
#define LOSSK_KEPT_BYTES (int64_t{1} << 30)
#endif
int rows_to_keep(const Operands& x) { return x.rows_that_fit(LOSSK_KEPT_BYTES, 6 * int64_t{std::max(x.v, 1)}); }

// A band at a time: its logits are kept, the loss and dlogits made of them, and both gradients. Three products in all.
void loss_and_gradient(
    Operands& x, const LossCoefs& c, const Coefs& coefs, const Wanted& wanted, const Statistics& s, const Loss& l,
    const Gradients& grads) {
  const int most = std::min(rows_to_keep(x), x.n), stride = round_up(x.v, 8);
  const int segment = segment_of(x.v), parts = x.path.parts * ceil_div(x.v, segment);
  const int64_t floats = (c.full ? sizeof(FullState) : sizeof(Partial)) / sizeof(float);
  Tensor partial = x.scratch({parts, most, floats}, ScalarType::Float);
  Tensor kept = x.scratch({most, stride}, ScalarType::Float);
  Tensor out = x.scratch({most, stride}, x.like.scalar_type());
  const int spans = ceil_div(x.v, kKeptSpan);
  Tensor row_sums = x.scratch({wanted.scale ? spans : 0, most}, ScalarType::Float);
  const bool by_units = x.type == Element::fp16;
  Tensor unit = x.scratch({by_units ? most + 1 : 0}, ScalarType::Float);
  Tensor times = x.scratch({by_units ? most : 0}, ScalarType::Float);
  const float* by = by_units ? data<float>(unit) : nullptr;
  const Slices input_slices(x, wanted.input ? most : 0, x.d, x.v, LOSSK_KEPT_BYTES / 8);
  if (c.full) x.run(sum_aux({x.head.aux, x.v, data<double>(s.aux_sum)}, x.device.stream));
  const Matrix weight = x.weight(0, x.v);
  for (int first = 0; first < x.n; first += most) {
    const int rows = std::min(most, x.n - first);
    const Head head = x.rows(first, rows);
    const Matrix input = from_line(x.input(), first, rows);
    const KeptParams logits{data<float>(kept), stride};
    x.run(x.path.keep_logits(
        {.product = {input, weight, x.d, segment, head.rows_there},
         .head = head,
         .partial = partial.data_ptr(),
         .picked = data<float>(s.logits),
         .kept = logits},
        x.type, c.full, x.device.stream));
    x.run(merge_stats(
        {.partial = partial.data_ptr(),
         .parts = parts,
         .head = head,
         .n = x.n,
         .index = x.index,
         .aux_sum = data<double>(s.aux_sum),
         .stats = data<float>(s.stats),
         .picked = data<float>(s.logits),
         .logp = data<float>(s.logp),
         .argmax = data<int64_t>(s.argmax)},
        c.full, x.device.stream));
    x.run(sum_loss(loss_params(x, s, c, head, l), x.device.stream));

    Matrix by_columns{input.data, x.d, input.stride, 0};
    if (by_units) {
      x.run(find_units({head, coefs, c.full, data<float>(unit), data<float>(times)}, x.device.stream));
      if (wanted.weight) by_columns = x.input_by_columns(data<float>(times), first, rows);
    }
    x.run(kept_dlogits(
        {{.head = head,
          .coefs = coefs,
          .unit = by,
          .out = out.data_ptr(),
          .stride = stride,
          .row_sums = wanted.scale ? data<float>(row_sums) : nullptr},
         logits},
        x.type, c.full, x.device.stream));
    const int* ids = x.head.ids ? x.head.ids + first : nullptr;
    if (wanted.weight)
      x.run(x.path.store(
          {.product = {{out.data_ptr(), x.v, stride, 0}, by_columns, rows, kSpan, {}, head.rows_there, {}, first > 0},
           .out = grads.weight.data_ptr(),
           .wide = true,
           .sum = data<float>(grads.weight),
           .unit = by ? by + rows : nullptr,
           .rows = x.v,
           .columns = x.d,
           .first = first == 0,
           .last = true},
          x.type, Along::rows, Along::rows, x.device.stream));
    if (wanted.bias)
      x.run(column_sums(
          {out.data_ptr(), rows, stride, x.v, head.rows_there, by, data<float>(grads.bias)}, x.type, x.device.stream));
    if (wanted.scale)
      x.run(add_row_sums(
          {data<float>(row_sums), spans, rows, ids, head.rows_there, by, data<float>(grads.scale) + (ids ? 0 : first)},
          x.device.stream));
    if (wanted.input)
      x.run(x.path.store(
          {.product =
               {.a = {out.data_ptr(), rows, stride, 0},
                .b = {weight.data, x.d, weight.stride, 0},
                .depth = x.v,
                .span = kSpan,
                .rows_there = head.rows_there,
                .slices = input_slices.count},
           .out = data<float>(grads.input) + (ids ? 0 : int64_t{first} * x.d),
           .wide = true,
           .ids = ids,
           .count = head.rows_there,
           .unit = by,
           .unit_by_row = true,
           .rows = rows,
           .columns = x.d,
           .first = true,
           .last = true,
           .slices = input_slices.sums()},
          x.type, Along::depth, Along::rows, x.device.stream));
  }
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
  const LossCoefs c{loss_of.data, pick_of.data, full};
  x.lay_out_input();
  const Loss l = loss_tensors(x, full);
  const Gradients grads = gradient_tensors(x, wanted, ScalarType::Float, ScalarType::Float);
  // A weight that is copied in parts, and float32's three planes, are for the backward that recomputes.
  const bool keep = wanted.any() && x.n > 0 && x.v > 0 && x.type != Element::fp32 && x.weight_in_place();
  const Statistics s = keep ? statistics_tensors(x, full, false) : statistics(x, full, false);
  const Coefs coefs{data<float>(s.stats), nullptr, data<float>(l.row_coef), pick_of.data, x.n};
  if (keep) {
    Tensor whole = grads.input;
    if (wanted.input && x.head.ids) torch::stable::zero_(whole);
    loss_and_gradient(x, c, coefs, wanted, s, l, grads);
  } else {
    x.run(sum_loss(loss_params(x, s, c, x.head, l), x.device.stream));
    backward(x, coefs, full, wanted, grads);
  }
  Tensor lse = torch::stable::clone(torch::stable::select(s.stats, 0, 0));
  return {l.loss, lse, grads.input, grads.weight, grads.bias, grads.scale};
}

// By recomputation: bands of kept logits would write d weight's own terms once a band.
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
  const Loss l{
      x.scratch({}, ScalarType::Float), x.scratch({1}, ScalarType::Double), x.zeros({2, x.n}, ScalarType::Float)};
  const Gradients grads = gradient_tensors(x, wanted, ScalarType::Float, ScalarType::Float);
  const Statistics s = statistics(x, false, false, dense);
  x.run(sum_loss(loss_params(x, s, {loss_of.data, pick_of.data, dense}, x.head, l), x.device.stream));
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
