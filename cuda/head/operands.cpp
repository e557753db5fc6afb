#include "head/operands.h"

#include <cstdlib>
#include <string>

namespace lossk::head {
namespace {

using device::Element;

constexpr int64_t kMostSize = INT_MAX - (1 << 25);  // of a dimension: room for the last segment, or part, that is begun

Element element_of(const char* op, ScalarType type) {
  switch (type) {
    case ScalarType::BFloat16: return Element::bf16;
    case ScalarType::Half: return Element::fp16;
    case ScalarType::Float: return Element::fp32;
    default: fail(op, ": input must be float32, bfloat16 or float16 on CUDA, got ", dtype_name(type));
  }
}

// Hopper's path only on the GPU that it was built for: 90a code runs on no other. LOSSK_KERNELS=mma_sync takes the
// other there too, so that one machine tests both; wgmma_alone: product/launch_wgmma.h.
const Path& path_for(const char* op, int capability) {
  const char* wanted = std::getenv("LOSSK_KERNELS");
  const bool any = wanted && std::string(wanted) == "mma_sync";
  check(
      any || !wanted || std::string(wanted) == "wgmma_alone",
      "lossk: LOSSK_KERNELS must be mma_sync, wgmma_alone or not be set, got ", wanted);
  check(
      capability >= 80, op, ": needs a GPU of compute capability 8.0 or later, got ", capability / 10, ".",
      capability % 10);
#if LOSSK_SM90
  if (capability == 90 && !any) return kWgmma;
#endif
  return kMmaSync;
}

void check_optional(
    const char* op, const char* name, const std::optional<Tensor>& x, std::initializer_list<int64_t> shape,
    ScalarType type, const Tensor& like) {
  if (!x.has_value()) return;
  check_tensor(op, name, *x, shape, type);
  check_device(op, name, *x, like);
}

}  // namespace

Operands::Operands(const HeadArgs& a)
    : op(a.op),
      device(a.op, a.input),
      path(path_for(a.op, device.capability)),
      like(a.input),
      type(element_of(a.op, a.input.scalar_type())),
      head{},
      input_(a.input),
      weight_(a.linear_weight),
      bias_(a.distance ? std::optional(a.distance->columns) : a.linear_bias),
      scale_(a.scale),
      aux_(a.aux),
      terms_(a.distance ? std::optional(a.distance->rows) : std::nullopt),
      index_(a.index),
      active_(a.active) {
  check(a.input.dim() == 2, op, ": input must be [N, D], got ", shape_text(a.input.sizes()));
  check(
      a.linear_weight.dim() == 2 && a.linear_weight.size(1) == a.input.size(1), op, ": linear_weight must be [V, ",
      a.input.size(1), "], got ", shape_text(a.linear_weight.sizes()));
  const int64_t rows = a.input.size(0), dim = a.input.size(1), vocab = a.linear_weight.size(0);
  check(
      std::max({rows, dim, vocab}) <= kMostSize, op, ": N, D and V must be at most ", kMostSize, ", got ", rows, ", ",
      dim, " and ", vocab);
  check_tensor(op, "linear_weight", a.linear_weight, {vocab, dim}, a.input.scalar_type());
  check_device(op, "linear_weight", a.linear_weight, like);
  check_optional(op, "linear_bias", a.linear_bias, {vocab}, ScalarType::Float, like);
  check_optional(op, "scale", a.scale, {rows}, ScalarType::Float, like);
  check_optional(op, "aux", a.aux, {vocab}, ScalarType::Float, like);
  check_optional(op, "active", a.active, {rows}, ScalarType::Bool, like);
  int64_t picks = 0;
  if (a.index.has_value()) {
    check(a.index->dim() == 2, op, ": index must be [N, K], got ", shape_text(a.index->sizes()));
    picks = a.index->size(1);
    check_optional(op, "index", a.index, {rows, picks}, ScalarType::Long, like);
    check(picks <= kMostSize, op, ": index must have at most ", kMostSize, " columns, got ", picks);
  }
  check(a.softcap >= 0 && a.softcap < INFINITY, op, ": softcap must be finite and >= 0, got ", a.softcap);
  check(std::isfinite(a.margin), op, ": margin must be finite, got ", a.margin);
  if (a.distance) {
    check_optional(op, "rows", a.distance->rows, {4, rows}, ScalarType::Float, like);
    check_optional(op, "columns", a.distance->columns, {vocab}, ScalarType::Float, like);
    const double power = a.distance->power;
    check(power > 0 && power < INFINITY, op, ": power must be finite and > 0, got ", power);
    head.distance = distance_of(op, a.distance->kind);
    head.power = static_cast<float>(power), head.terms = terms_.data, head.of = rows;
  }
  n = static_cast<int>(rows), v = static_cast<int>(vocab), d = static_cast<int>(dim), k = static_cast<int>(picks);
  index = index_.data;
  if (weight_.stride(1) != 1) weight_ = torch::stable::contiguous(weight_);
  weight_ready_ = ready(weight_);

  head.rows = n, head.columns = v;
  head.bias = bias_.data, head.scale = scale_.data, head.aux = aux_.data;
  head.softcap = static_cast<float>(a.softcap), head.margin = static_cast<float>(a.margin);
  if (int64_t{n} * k > 0) {
    Tensor columns = scratch({n, k}, ScalarType::Int), entries = scratch({n, k}, ScalarType::Int);
    head.picks = {lossk::data<int>(columns), lossk::data<int>(entries), k};
    run(sort_picks({index, n, k, v, lossk::data<int>(columns), lossk::data<int>(entries)}, device.stream));
    kept_.insert(kept_.end(), {columns, entries});
  }
  if (active_.data) {
    Tensor ids = scratch({n}, ScalarType::Int), count = scratch({1}, ScalarType::Int);
    run(compact({active_.data, n, lossk::data<int>(ids), lossk::data<int>(count)}, device.stream));
    head.ids = lossk::data<int>(ids), head.rows_there = {lossk::data<int>(count)};
    kept_.insert(kept_.end(), {ids, count});
  }
}

bool Operands::ready(const Tensor& x) const {
  return type != Element::fp32 && x.size(1) % 8 == 0 && x.stride(1) == 1 && x.stride(0) % 8 == 0 &&
         x.stride(0) >= x.size(1) && reinterpret_cast<uintptr_t>(x.data_ptr()) % 16 == 0;
}

const void* Operands::gathered(
    const Tensor& from, int64_t first, int rows, const int* ids, Count count, const float* times,
    const Tensor& to) const {
  const auto* data = static_cast<const char*>(from.data_ptr()) + first * from.stride(0) * bytes_of(from.scalar_type());
  run(gather({data, from.stride(0), ids, count, times, to.data_ptr(), rows, d, padded()}, type, device.stream));
  return to.data_ptr();
}

void Operands::lay_out_input(const std::optional<Tensor>& room) {
  if (input_data_) return;
  if (input_.stride(1) != 1) input_ = torch::stable::contiguous(input_);
  if (!head.ids && ready(input_)) {
    input_data_ = input_.data_ptr(), input_stride_ = input_.stride(0);
    return;
  }
  const bool fits = room.has_value() && planes() == 1 && d % 8 == 0;
  kept_.push_back(fits ? *room : scratch({planes(), n, padded()}, product_type()));
  input_data_ = gathered(input_, 0, n, head.ids, head.rows_there, nullptr, kept_.back());
  input_stride_ = padded();
}

Matrix Operands::input(const int* ids, Count count, const Tensor& to) const {
  return {gathered(input_, 0, n, ids, count, nullptr, to), n, padded(), int64_t{n} * padded()};
}

Matrix Operands::input_by_columns(const float* times, const int* ids, Count count) {
  if (!multiplied_ || multiplied_->size(0) < n) multiplied_ = scratch({n, padded()}, like.scalar_type());
  return {gathered(input_, 0, n, ids, count, times, *multiplied_), d, padded(), 0};
}

Matrix Operands::input_by_columns(const float* times) { return input_by_columns(times, head.ids, head.rows_there); }

Matrix Operands::weight(int first, int count, Count there) {
  const int64_t stride = weight_ready_ ? weight_.stride(0) : padded();
  if (weight_ready_) return {static_cast<const uint16_t*>(weight_.data_ptr()) + first * stride, count, stride, 0};
  if (!weight_part_ || weight_part_->size(1) < count)
    weight_part_ = scratch({planes(), count, padded()}, product_type());
  return {gathered(weight_, first, count, nullptr, there, nullptr, *weight_part_), count, stride, count * stride};
}

Matrix Operands::weight(const int* ids, Count count, int most) {
  if (!weight_columns_ || weight_columns_->size(1) != most)
    weight_columns_ = scratch({planes(), most, padded()}, product_type());
  return {gathered(weight_, 0, most, ids, count, nullptr, *weight_columns_), most, padded(), int64_t{most} * padded()};
}

int Operands::most_columns(int unit) const {
  return weight_ready_ ? std::max(unit, round_up(v, unit)) : most_copied_columns(unit, kWorkspaceBytes);
}

int Operands::most_copied_columns(int unit, int64_t bytes) const {
  const int all = std::max(unit, round_up(v, unit));
  const int64_t fit = bytes / (2 * int64_t{planes()} * std::max(padded(), 8)) / unit * unit;
  return static_cast<int>(std::clamp<int64_t>(fit, unit, all));
}

}  // namespace lossk::head
