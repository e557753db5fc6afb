// linear_pairwise and its backward on the CPU, schemas in ops.cpp.
#include <torch/csrc/stable/library.h>

#include <string>
#include <tuple>

#include "head/beside.h"

namespace lossk {
namespace {

struct Offsets {
  const Tensor& offset;
  const std::optional<Tensor>& skip;
  Compare kind;
  double beta;
};

// The numbers beside a head's rows, kept alive.
template <class T>
struct Numbers {
  Optional<T> offset;
  Optional<int64_t> skip;
  Beside<T> beside;

  Numbers(const char* op, const Offsets& of, int64_t n) : offset(of.offset), skip(of.skip) {
    check_tensor(op, "offset", of.offset, {2, n}, scalar_type_of<T>);
    if (of.skip.has_value()) check_tensor(op, "skip", *of.skip, {n}, ScalarType::Long);
    beside = {.number = offset.data, .shift = offset.data + n, .skip = skip.data};
  }
};

template <class T>
Tensor pairwise_of(const HeadArgs& args, const Offsets& of) {
  const Head<T> head(args);
  const int64_t n = head.total, active = head.rows.size();
  const Numbers<T> numbers(args.op, of, n);
  Tensor sums = zeros(args.op, args.input, {2, n}, scalar_type_of<T>);
  const int64_t chunk = rows_per_chunk(head, active);
  Sweep<T> sweep(head, chunk, 0);
  const std::vector<Normaliser<T>> none(chunk);
  std::vector<CompareTotals> totals(chunk);
  for (int64_t begin = 0; begin < active; begin += chunk) {
    const int64_t count = std::min(chunk, active - begin);
    sweep.take_rows(begin, count);
    compare(head, sweep, numbers.beside, of.kind, T(of.beta), begin, count, none.data(), none.data(), totals.data());
    for (int64_t r = 0; r < count; ++r) {
      data<T>(sums)[head.rows[begin + r]] = T(totals[r].a);
      data<T>(sums)[n + head.rows[begin + r]] = T(totals[r].b);
    }
  }
  return sums;
}

template <class T>
GradTensors backward_of(
    const HeadArgs& args, const Offsets& of, const Tensor& row_coef, const Wanted& wanted, bool weight_grad_fp32) {
  const Head<T> head(args);
  const Numbers<T> numbers(args.op, of, head.total);
  check_tensor(args.op, "row_coef", row_coef, {head.total}, scalar_type_of<T>);
  const Optional<T> coef_of(row_coef);
  std::vector<CompareCoef<T>> coefs(rows_of_block(head));
  return recompute(args, head, wanted, weight_grad_fp32, [&](int64_t begin, int64_t count) {
    for (int64_t r = 0; r < count; ++r) coefs[r] = {.upstream = coef_of.data[head.rows[begin + r]]};
    return CompareGradient<T>(head, begin, of.kind, T(of.beta), false, coefs.data(), numbers.beside);
  });
}

Tensor linear_pairwise(
    const Tensor& input, const Tensor& linear_weight, const std::optional<Tensor>& linear_bias,
    const std::optional<Tensor>& scale, const Tensor& offset, const std::optional<Tensor>& skip,
    const std::optional<Tensor>& active, double softcap, std::string kind, double beta) {
  const char* op = "linear_pairwise";
  const HeadArgs args{op, input, linear_weight, linear_bias, scale, kAbsent, kAbsent, active, softcap, 0};
  const Offsets of{offset, skip, compare_of(op, kind, false), beta};
  return input.scalar_type() == ScalarType::Double ? pairwise_of<double>(args, of) : pairwise_of<float>(args, of);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> linear_pairwise_backward(
    const Tensor& input, const Tensor& linear_weight, const std::optional<Tensor>& linear_bias,
    const std::optional<Tensor>& scale, const Tensor& offset, const std::optional<Tensor>& skip,
    const std::optional<Tensor>& active, double softcap, std::string kind, double beta, const Tensor& row_coef,
    std::vector<bool> needs_grad, bool weight_grad_fp32) {
  const char* op = "linear_pairwise_backward";
  const HeadArgs args{op, input, linear_weight, linear_bias, scale, kAbsent, kAbsent, active, softcap, 0};
  const Offsets of{offset, skip, compare_of(op, kind, false), beta};
  const Wanted wanted(op, needs_grad);
  const auto run = input.scalar_type() == ScalarType::Double ? backward_of<double> : backward_of<float>;
  return run(args, of, row_coef, wanted, weight_grad_fp32).tuple();
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lossk, CPU, m) {
  m.impl("linear_pairwise", TORCH_BOX(&linear_pairwise));
  m.impl("linear_pairwise_backward", TORCH_BOX(&linear_pairwise_backward));
}

}  // namespace lossk
