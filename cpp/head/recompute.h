// The backward that makes the logits again: every gradient of a head, whatever becomes of its logits.
#pragma once
#include "head/grad_outputs.h"
#include "head/sweep.h"

namespace lossk {

// Of a block: whole panels on any CPU. Long in rows: d weight sums over them in registers.
constexpr int64_t kMostRows = 1056;
template <class T>
int64_t rows_of_block(const Head<T>& head) {
  return std::clamp<int64_t>(head.rows.size(), 1, kMostRows);
}

// gradient_of(begin, count) gives the Gradient of these active rows.
template <class T, class GradientOf>
GradTensors recompute(
    const HeadArgs& args, const Head<T>& head, const Wanted& wanted, bool weight_grad_fp32,
    const GradientOf& gradient_of) {
  const int64_t active = head.rows.size(), dim = head.dim;
  const ScalarType weight_dtype = weight_grad_fp32 ? scalar_type_of<T> : head.dtype;
  GradTensors grads = grad_tensors(args, head, wanted, head.dtype, weight_dtype);
  if (active == 0 || head.vocab == 0 || !wanted.any()) return grads;

  // Chunks of the vocabulary outside, of rows inside: d weight is summed over all rows before it is rounded, once.
  const bool direct = weight_dtype == scalar_type_of<T>, sums_weight = wanted.weight && !direct;
  const int64_t chunk = rows_of_block(head), per_column = (chunk + (sums_weight ? dim : 0)) * int64_t(sizeof(T));
  const int64_t segments = std::clamp<int64_t>(kBlockBytes / (per_column * kSegment), 1, head.segments());
  Sweep<T> sweep(head, chunk, segments);
  const Scratch input_sum(args.op, wanted.input ? active * dim * sizeof(T) : 0);
  if (wanted.input) std::fill_n(input_sum.get<T>(), active * dim, T(0));
  const bool distance = head.distance != Distance::none;
  std::vector<GradSums<T>> sums(wanted.scale || (distance && wanted.input) ? active : 0);
  std::vector<T> columns(distance && wanted.weight ? head.vocab : 0);
  Tensor weight_sum = empty(args.op, args.input, {sums_weight ? segments * kSegment : 0, dim}, scalar_type_of<T>);
  for (int64_t s0 = 0; s0 < head.segments(); s0 += segments) {
    const int64_t s1 = std::min(s0 + segments, head.segments());
    const int64_t v0 = s0 * kSegment, v1 = std::min(s1 * kSegment, head.vocab);
    for (int64_t begin = 0; begin < active; begin += chunk) {
      const int64_t count = std::min(chunk, active - begin);
      sweep.take_rows(begin, count);
      auto gradient = gradient_of(begin, count);
      GradSinks<T> out;
      if (wanted.input) out.input = input_sum.get<T>() + begin * dim;
      if (wanted.weight) out.weight = direct ? data<T>(grads.weight) + v0 * dim : data<T>(weight_sum);
      if (wanted.bias) out.bias = data<T>(grads.bias);
      else if (!columns.empty()) out.bias = columns.data();
      if (!sums.empty()) out.sums = sums.data() + begin;
      out.fresh = begin == 0;
      sweep.grads(s0, s1, false, gradient, out);
    }
    if (wanted.weight)
      own_weight(
          head, v0, v1 - v0, columns.data() + (distance ? v0 : 0),
          direct ? data<T>(grads.weight) + v0 * dim : data<T>(weight_sum));
    if (sums_weight) {
      Tensor rows = torch::stable::narrow(grads.weight, 0, v0, v1 - v0);
      torch::stable::copy_(rows, torch::stable::narrow(weight_sum, 0, 0, v1 - v0));
    }
  }
  if (wanted.input) own_input(head, 0, active, sums.data(), input_sum.get<T>());
  if (wanted.input) store_rows(head, input_sum.get<T>(), 0, active, grads.input);
  for (size_t i = 0; wanted.scale && i < sums.size(); ++i) data<T>(grads.scale)[head.rows[i]] = sums[i].scale;
  return grads;
}

}  // namespace lossk
