#include "head/gradients.h"

#include "head/own/params.h"

namespace lossk::head {

using device::Element;

// Longer parts add to d input's sums less often, which is a quarter of its time at 4096 columns (NOTES.md), 4 % at
// these. But blocks that walk far along a product's depth drift apart, and share less of what L2 holds. A power of two
// would leave four of d weight's 4096 tiles for a round of their own on 132 multiprocessors.
constexpr int kWidestPart = 127 * kSpan;
constexpr int64_t kRoomAlignment = 256;

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

Tensor with_dense(const Operands& x, const Tensor& row_coef) {
  const int rows = row_coef.dim() == 2 && row_coef.size(0) == 2 ? 2 : 1;
  const auto given = coefficients(x, "row_coef", row_coef, {rows, x.n});
  if (rows == 2) return *given.tensor;
  Tensor both = x.zeros({2, x.n}, ScalarType::Float), a = torch::stable::narrow(both, 0, 0, 1);
  torch::stable::copy_(a, *given.tensor);
  return both;
}

int columns_at_the_end(const Operands& x, const Tensor* weight, int first) {
  if (!weight || weight->numel() == 0) return 0;
  const int64_t line = x.d * bytes_of(weight->scalar_type()), column = 2 * int64_t{x.planes()} * x.n;
  const int64_t fit = ((x.v - first) * line - kRoomAlignment) / (line + column) / kSpan * kSpan;
  return static_cast<int>(std::clamp<int64_t>(fit, 0, std::min(kWidestPart, x.most_columns(kSpan))));
}

Room room_for(const Operands& x, const Tensor& workspace, const Tensor* weight, int first) {
  const int most = static_cast<int>(workspace.size(2)), left = x.v - first, fit = columns_at_the_end(x, weight, first);
  if (fit <= std::min(most, left)) return {workspace.data_ptr(), most, std::min(most, left)};
  const int64_t end = weight->numel() * bytes_of(weight->scalar_type());
  const int64_t place = (end - 2 * int64_t{x.planes()} * x.n * fit) / kRoomAlignment * kRoomAlignment;
  return {static_cast<char*>(weight->data_ptr()) + place, fit, fit};
}

FromDlogits::FromDlogits(Operands& x, const Wanted& wanted, const Gradients& grads, int most, int row_parts)
    : x_(x),
      wanted_(wanted),
      grads_(grads),
      own_rows_(distance() && wanted.input),
      own_columns_(distance() && wanted.weight),
      out_(x.scratch({x.planes(), x.n, std::min(most, round_up(x.v, 8))}, x.product_type())),
      sum_(x.scratch({wanted.input && (most < x.v || distance()) ? x.n : 0, x.d}, ScalarType::Float)),
      row_sums_tensor_(x.scratch({wanted.scale || own_rows_ ? row_parts : 0, x.n}, ScalarType::Float)),
      unit_tensor_(x.scratch({x.type == Element::fp16 ? x.n + 1 : 0}, ScalarType::Float)),
      times_(x.scratch({x.type == Element::fp16 ? x.n : 0}, ScalarType::Float)),
      of_rows_(x.zeros({own_rows_ ? x.n : 0}, ScalarType::Float)),
      of_columns_(x.zeros({own_columns_ ? x.v : 0}, ScalarType::Float)),
      weight_sum_(x.scratch({own_columns_ ? std::min(most, x.v) : 0, x.d}, ScalarType::Float)),
      input_slices_(x, wanted.input ? x.n : 0, x.d, std::min(most, x.v)),
      unit_(x.type == Element::fp16 ? data<float>(unit_tensor_) : nullptr),
      row_sums_(wanted.scale || own_rows_ ? data<float>(row_sums_tensor_) : nullptr),
      room_{out_.data_ptr(), static_cast<int>(out_.size(2)), std::min(most, x.v)} {
  // A distance needs the rows to the end.
  const bool same = grads.input.scalar_type() == x.like.scalar_type() && !distance();
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

const Room& FromDlogits::begin(int first, int end) {
  // A distance has d weight's part in float32 beside it, which is as wide as the workspace.
  room_ = room_for(x_, out_, own_columns_ ? nullptr : &grads_.weight, first);
  room_.columns = std::min(room_.columns, end - first);
  return room_;
}

void FromDlogits::add(int first, const Matrix& weight, int row_parts) {
  const int count = weight.rows;
  if (wanted_.weight) add_weight(first, count);
  if (wanted_.bias || own_columns_)
    x_.run(column_sums(
        {room_.dlogits, x_.n, room_.stride, count, x_.head.rows_there, unit_,
         data<float>(own_columns_ ? of_columns_ : grads_.bias) + first},
        x_.type, x_.device.stream));
  if (own_columns_) own_weight(first, weight);
  if (wanted_.scale || own_rows_)
    x_.run(add_row_sums(
        {row_sums_, row_parts, x_.n, own_rows_ ? nullptr : x_.head.ids, x_.head.rows_there, unit_,
         data<float>(own_rows_ ? of_rows_ : grads_.scale)},
        x_.device.stream));
  if (wanted_.input) add_input(first, weight);
  if (own_rows_ && first + count == x_.v) own_input();
}

void FromDlogits::own_weight(int first, const Matrix& weight) {
  const ScalarType dtype = grads_.weight.scalar_type();
  x_.run(take_off_own(
      {.distance = x_.head.distance,
       .sum = data<float>(weight_sum_),
       .of = data<float>(of_columns_) + first,
       .points = weight,
       .rows = weight.rows,
       .columns = x_.d,
       .out = static_cast<char*>(grads_.weight.data_ptr()) + int64_t{first} * x_.d * bytes_of(dtype),
       .wide = dtype == ScalarType::Float},
      x_.type, x_.device.stream));
}

void FromDlogits::own_input() {
  x_.run(take_off_own(
      {.distance = x_.head.distance,
       .sum = data<float>(sum_),
       .of = data<float>(of_rows_),
       .points = x_.input(),
       .rows = x_.n,
       .columns = x_.d,
       .count = x_.head.rows_there,
       .ids = x_.head.ids,
       .out = grads_.input.data_ptr(),
       .wide = grads_.input.scalar_type() == ScalarType::Float},
      x_.type, x_.device.stream));
}

void FromDlogits::add_weight(int first, int count) {
  const ScalarType dtype = grads_.weight.scalar_type();
  x_.run(x_.path.store(
      {.product =
           {{room_.dlogits, count, room_.stride, plane()}, input_by_columns_, x_.n, kSpan, {}, x_.head.rows_there},
       .out = own_columns_ ? weight_sum_.data_ptr()
                           : static_cast<char*>(grads_.weight.data_ptr()) + int64_t{first} * x_.d * bytes_of(dtype),
       .wide = own_columns_ || dtype == ScalarType::Float,
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
           {.a = {room_.dlogits, x_.n, room_.stride, plane()},
            .b = {weight.data, x_.d, weight.stride, weight.plane},
            .depth = weight.rows,
            .span = kSpan,
            .rows_there = x_.head.rows_there,
            .slices = input_slices_.count},
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
       .last = last && !own_rows_,
       .slices = input_slices_.sums()},
      x_.type, Along::depth, Along::rows, x_.device.stream));
}

}  // namespace lossk::head
