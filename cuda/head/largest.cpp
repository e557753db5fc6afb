// linear_topk and linear_sample on a GPU, schemas in cpp/ops.cpp.
#include "head/largest/params.h"

#include "head/raw_logits.h"

namespace lossk::head {
namespace {

// visit(logits) for each part of the vocabulary and each band of rows. Input is laid out.
template <class F>
void for_logits(Operands& x, const Tensor& partial, const F& visit) {
  const int segment = segment_of(x.v);
  const Cut cut = cut_logits(x, segment, x.most_columns(segment), 1);
  const RawLogits raw(x, cut);
  for (int first = 0; first < x.v; first += cut.columns) {
    const Matrix weight = x.weight(first, std::min(cut.columns, x.v - first));
    for (int row = 0; row < x.n; row += cut.rows) {
      const Side side = raw.make(weight, first, row, std::min(cut.rows, x.n - row));
      visit(
          LogitsRead{
              side.head, side.raw, RawLogits::stride(weight.rows), x.n, static_cast<Partial*>(partial.data_ptr()),
              segment});
    }
  }
}

Tensor partial_of(const Operands& x, int64_t floats) {
  return x.scratch({ceil_div(x.v, segment_of(x.v)), x.n, floats}, ScalarType::Float);
}

std::tuple<Tensor, Tensor, Tensor> linear_topk(
    const Tensor& input, const Tensor& linear_weight, const std::optional<Tensor>& linear_bias,
    const std::optional<Tensor>& scale, const std::optional<Tensor>& active, double softcap, int64_t k) {
  const char* op = "linear_topk";
  Operands x({op, input, linear_weight, linear_bias, scale, kAbsent, kAbsent, active, softcap, 0});
  check(
      k >= 1 && k <= kMostLargest && k <= x.v, op, ": k must be in [1, min(", kMostLargest, ", V = ", x.v, ")], got ",
      k);
  const int each = static_cast<int>(k);
  Tensor values = x.zeros({x.n, k}, ScalarType::Float), indices = x.scratch({x.n, k}, ScalarType::Long);
  torch::stable::fill_(indices, -1);
  Tensor stats = x.zeros({3, x.n}, ScalarType::Float), partial = partial_of(x, sizeof(Partial) / sizeof(float));
  Tensor best = x.scratch({x.n, k}, ScalarType::Long);
  auto* keys = static_cast<Key*>(best.data_ptr());
  x.lay_out_input();
  for_logits(x, partial, [&](const LogitsRead& logits) { x.run(largest({logits, each, keys}, x.device.stream)); });
  x.run(write_largest({keys, x.head, each, data<float>(values), data<int64_t>(indices)}, x.device.stream));
  x.run(merge_stats(
      {.partial = partial.data_ptr(),
       .parts = ceil_div(x.v, segment_of(x.v)),
       .head = x.head,
       .stats = data<float>(stats)},
      false, x.device.stream));
  return {values, indices, torch::stable::clone(torch::stable::select(stats, 0, 0))};
}

std::tuple<Tensor, Tensor> linear_sample(
    const Tensor& input, const Tensor& linear_weight, const std::optional<Tensor>& linear_bias,
    const std::optional<Tensor>& scale, double softcap, const Tensor& seed) {
  const char* op = "linear_sample";
  Operands x({op, input, linear_weight, linear_bias, scale, kAbsent, kAbsent, kAbsent, softcap, 0});
  check(x.v > 0 || x.n == 0, op, ": linear_weight must have rows, got none");
  check_tensor(op, "seed", seed, {1}, ScalarType::Long);
  check_device(op, "seed", seed, x.like);
  Tensor token = x.scratch({x.n}, ScalarType::Long), logp = x.scratch({x.n}, ScalarType::Float);
  Tensor partial = partial_of(x, sizeof(Partial) / sizeof(float)),
         best = partial_of(x, sizeof(Sampled) / sizeof(float));
  auto* sampled = static_cast<Sampled*>(best.data_ptr());
  x.lay_out_input();
  for_logits(x, partial, [&](const LogitsRead& logits) {
    x.run(sample({logits, data<int64_t>(seed), sampled}, x.device.stream));
  });
  x.run(merge_sampled(
      {sampled, static_cast<const Partial*>(partial.data_ptr()), ceil_div(x.v, segment_of(x.v)), x.n,
       data<int64_t>(token), data<float>(logp)},
      x.device.stream));
  return {token, logp};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lossk, LOSSK_DISPATCH, m) {
  m.impl("linear_topk", TORCH_BOX(&linear_topk));
  m.impl("linear_sample", TORCH_BOX(&linear_sample));
}

}  // namespace lossk::head
