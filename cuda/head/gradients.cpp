#include "head/gradients.h"

namespace lossk::head {

using device::Element;

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

FromDlogits::FromDlogits(Operands& x, const Wanted& wanted, const Gradients& grads, int most, int row_parts)
    : stride(std::min(most, round_up(x.v, 8))),
      x_(x),
      wanted_(wanted),
      grads_(grads),
      out_(x.scratch({x.planes(), x.n, stride}, x.type == Element::fp16 ? ScalarType::Half : ScalarType::BFloat16)),
      sum_(x.scratch({wanted.input && most < x.v ? x.n : 0, x.d}, ScalarType::Float)),
      row_sums_tensor_(x.scratch({wanted.scale ? row_parts : 0, x.n}, ScalarType::Float)),
      unit_tensor_(x.scratch({x.type == Element::fp16 ? x.n + 1 : 0}, ScalarType::Float)),
      times_(x.scratch({x.type == Element::fp16 ? x.n : 0}, ScalarType::Float)),
      unit_(x.type == Element::fp16 ? data<float>(unit_tensor_) : nullptr),
      row_sums_(wanted.scale ? data<float>(row_sums_tensor_) : nullptr) {
  const bool same = grads.input.scalar_type() == x.like.scalar_type();
  x.lay_out_input(wanted.input && same ? std::optional(grads.input) : std::nullopt);
  input_by_columns_ = x.input_by_columns();
}

void FromDlogits::find_units(const Coefs& coefs, bool full, const float* bound) {
  if (!unit_) return;
  x_.run(
      head::find_units(
          {x_.head, coefs, full, data<float>(unit_tensor_), data<float>(times_), bound}, x_.device.stream));
  if (wanted_.weight) input_by_columns_ = x_.input_by_columns(data<float>(times_));
}

void FromDlogits::add(int first, const Matrix& weight, int row_parts) {
  const int count = weight.rows;
  if (wanted_.weight) add_weight(first, count);
  if (wanted_.bias)
    x_.run(column_sums(
        {dlogits(), x_.n, stride, count, x_.head.rows_there, unit_, data<float>(grads_.bias) + first}, x_.type,
        x_.device.stream));
  if (wanted_.scale)
    x_.run(add_row_sums(
        {row_sums_, row_parts, x_.n, x_.head.ids, x_.head.rows_there, unit_, data<float>(grads_.scale)},
        x_.device.stream));
  if (wanted_.input) add_input(first, weight);
}

void FromDlogits::add_weight(int first, int count) {
  const ScalarType dtype = grads_.weight.scalar_type();
  x_.run(x_.path.store(
      {.product = {{dlogits(), count, stride, plane()}, input_by_columns_, x_.n, kSpan, {}, x_.head.rows_there},
       .out = static_cast<char*>(grads_.weight.data_ptr()) + int64_t{first} * x_.d * bytes_of(dtype),
       .wide = dtype == ScalarType::Float,
       .unit = unit_ ? unit_ + x_.n : nullptr,
       .rows = count,
       .columns = x_.d,
       .first = true,
       .last = true},
      x_.type, Along::rows, Along::rows, x_.device.stream));
}

void FromDlogits::add_input(int first, const Matrix& weight) {
  const bool last = first + weight.rows == x_.v;
  Tensor whole = grads_.input;
  // Rows that are not there get nothing from the product. Input's may lie here, but nobody reads them any more.
  if (last && x_.head.ids) torch::stable::zero_(whole);
  x_.run(x_.path.store(
      {.product =
           {{dlogits(), x_.n, stride, plane()},
            {weight.data, x_.d, weight.stride, weight.plane},
            weight.rows,
            kSpan,
            x_.head.rows_there},
       .out = grads_.input.data_ptr(),
       .wide = grads_.input.scalar_type() == ScalarType::Float,
       .sum = data<float>(sum_),
       .ids = x_.head.ids,
       .count = x_.head.rows_there,
       .unit = unit_,
       .unit_by_row = true,
       .rows = x_.n,
       .columns = x_.d,
       .first = first == 0,
       .last = last},
      x_.type, Along::depth, Along::rows, x_.device.stream));
}

}  // namespace lossk::head
