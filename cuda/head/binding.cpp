// linear_stats, its backward and cce_forward on a GPU, schemas in cpp/ops.cpp.
#include <tuple>

#include "head/operands.h"

namespace lossk::head {
namespace {

using device::Element;

// float32, on input's device, of this shape; keeps alive what its pointer points to.
Optional<float> coefficients(
    const Operands& x, const char* name, const std::optional<Tensor>& tensor, std::initializer_list<int64_t> shape) {
  if (tensor.has_value()) {
    check_tensor(x.op, name, *tensor, shape, ScalarType::Float);
    check_device(x.op, name, *tensor, x.like);
  }
  return Optional<float>(tensor);
}

// ---- forward --------------------------------------------------------------------------------------------------------

struct Statistics {
  Tensor stats, logits, logp, argmax, aux_sum;
};

Statistics statistics(Operands& x, bool full) {
  const int64_t n = x.n, k = x.k;
  const auto zeros = [&](std::vector<int64_t> shape, ScalarType dtype) {
    return lossk::zeros(x.op, x.like, shape, dtype);
  };
  Statistics out{
      zeros({full ? 12 : 3, n}, ScalarType::Float), zeros({n, k}, ScalarType::Float), zeros({n, k}, ScalarType::Float),
      zeros({full ? n : 0}, ScalarType::Long), zeros({1}, ScalarType::Double)};
  if (full) x.run(sum_aux({x.head.aux, x.v, data<double>(out.aux_sum)}, x.device.stream));
  const int segment = segment_of(x.v), parts = x.path.parts * ceil_div(x.v, segment);
  const int64_t floats = (full ? sizeof(RowState<float>) : sizeof(Partial)) / sizeof(float);
  Tensor partial = x.scratch({parts, n, floats}, ScalarType::Float);
  const int most = x.most_columns(segment);
  for (int first = 0; first < x.v; first += most) {
    const int count = std::min(most, x.v - first);
    x.run(x.path.stats(
        {.product = {x.input(), x.weight(first, count), x.d, segment, x.head.rows_there},
         .head = x.part(first, count),
         .partial = partial.data_ptr(),
         .picked = data<float>(out.logits),
         .first_part = x.path.parts * (first / segment)},
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
       .argmax = data<int64_t>(out.argmax)},
      full, x.device.stream));
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> linear_stats(
    const Tensor& input, const Tensor& linear_weight, const std::optional<Tensor>& linear_bias,
    const std::optional<Tensor>& scale, const std::optional<Tensor>& index, const std::optional<Tensor>& aux,
    const std::optional<Tensor>& active, double softcap, double margin, bool full, double tau, bool) {
  const char* op = "linear_stats";
  check(tau == 0, op, ": tau must be 0 on CUDA, where live columns have no kernel yet, got ", tau);
  Operands x({op, input, linear_weight, linear_bias, scale, index, aux, active, softcap, margin});
  x.lay_out_input();
  const Statistics s = statistics(x, full);
  return {s.stats, s.logits, s.logp, s.argmax, lossk::zeros(op, input, {0, x.v}, ScalarType::BFloat16)};
}

// ---- backward -------------------------------------------------------------------------------------------------------

struct Gradients {  // [0] where not wanted
  Tensor input, weight, bias, scale;
};

// Zeros, but for the two that `backward` writes whole where it computes anything.
Gradients gradient_tensors(const Operands& x, const Wanted& wanted, ScalarType input_dtype, ScalarType weight_dtype) {
  const auto make = [&](bool want, std::vector<int64_t> shape, ScalarType dtype, bool written) {
    if (!want) shape = {0};
    return written ? x.scratch(shape, dtype) : lossk::zeros(x.op, x.like, shape, dtype);
  };
  const bool computed = x.n > 0 && x.v > 0;
  return {
      make(wanted.input, {x.n, x.d}, input_dtype, computed), make(wanted.weight, {x.v, x.d}, weight_dtype, computed),
      make(wanted.bias, {x.v}, ScalarType::Float, false), make(wanted.scale, {x.n}, ScalarType::Float, false)};
}

constexpr int kSpan = 256;  // columns that one block does in order: a multiple of every tile's

// As many columns as fit the workspace: few of them make short sums for d input, read and written again each time.
int columns_at_a_time(const Operands& x) {
  const int64_t fit = kWorkspaceBytes / (2 * int64_t{x.planes()} * std::max(x.n, 1)) / kSpan * kSpan;
  return static_cast<int>(std::clamp<int64_t>(fit, kSpan, x.most_columns(kSpan)));
}

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
  const Statistics s = statistics(x, full);
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
