// cce_forward on the CPU, schema in ops.cpp: the loss and, in the same sweep, its gradients (three products, not four).
#include <torch/csrc/stable/library.h>

#include "head/grad_outputs.h"
#include "head/sweep.h"

namespace lossk {
namespace {

using Outputs = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

constexpr int64_t kKeptBytes = 54 << 20;  // of raw logits over the whole vocabulary

// Rows per chunk, in chunks of one size: each chunk packs the weight and reads and writes d weight once, so there
// should be few of them, and where the vocabulary is very large at least 192 rows share that cost.
template <class T>
int64_t rows_kept(const Head<T>& head, int64_t active) {
  const int64_t per_row = std::max<int64_t>(1, head.segments()) * kSegment * int64_t(sizeof(T));
  const int64_t fit = std::clamp<int64_t>(kKeptBytes / per_row, 192, 2048);
  const int64_t chunks = std::max<int64_t>(1, ceil_div(active, fit));
  return std::max<int64_t>(1, std::min(active, round_up(ceil_div(active, chunks), head.products.mr)));
}

template <class T>
Outputs forward_of(const HeadArgs& args, const Tensor& loss_coef, const Tensor& index_coef, const Wanted& wanted) {
  const Head<T> head(args);
  const int64_t n = head.total, active = head.rows.size(), dim = head.dim, picks = head.picks;
  const bool dense = loss_coef.dim() == 2 && loss_coef.size(0) == 3;  // every statistic, and the general gradient
  check_tensor(args.op, "loss_coef", loss_coef, {dense ? 3 : 2, n}, scalar_type_of<T>);
  check_tensor(args.op, "index_coef", index_coef, {n, picks}, scalar_type_of<T>);
  const Optional<T> loss_of(loss_coef), pick_of(index_coef);
  const T *a = loss_of.data, *b = a + n, *c = dense ? b + n : nullptr;

  Tensor lse = zeros(args.op, args.input, {n}, scalar_type_of<T>);
  Tensor loss = zeros(args.op, args.input, {}, scalar_type_of<T>);
  GradTensors grads = grad_tensors(args, head, wanted, scalar_type_of<T>, scalar_type_of<T>);

  const bool any = wanted.any() && head.vocab > 0;
  const int64_t chunk = any ? rows_kept(head, active) : rows_per_chunk(head, active);
  Sweep<T> sweep(head, chunk, any ? head.segments() : 0);
  std::vector<RowState<double>> states(chunk);
  std::vector<RowCoef<T>> coefs(any ? chunk : 0);
  const bool distance = head.distance != Distance::none;
  std::vector<GradSums<T>> sums(wanted.scale || (distance && wanted.input) ? active : 0);
  std::vector<T> columns(distance && wanted.weight ? head.vocab : 0);
  const Scratch picked(args.op, n * picks * sizeof(T));
  const Scratch input_sum(args.op, wanted.input ? chunk * dim * sizeof(T) : 0);
  double total = 0;
  for (int64_t begin = 0; begin < active; begin += chunk) {
    const int64_t count = std::min(chunk, active - begin);
    sweep.take_rows(begin, count);
    sweep.stats(dense, any, states.data(), picked.get<T>());
    for (int64_t r = 0; r < count; ++r) {
      const int64_t row = head.rows[begin + r], *index = head.index(row);
      if (dense) add_picks(head, row, picked.get<T>(), states[r]);
      const double z = states[r].lse();
      data<T>(lse)[row] = T(z);
      double term = a[row] * z + b[row] * z * z;
      if (dense && c[row] != 0) term += c[row] * states[r].aux_dot;
      for (int64_t k = 0; k < picks; ++k)
        if (index[k] >= 0) term -= double(pick_of.data[row * picks + k]) * picked.get<T>()[row * picks + k];
      total += term;
      if (any)
        coefs[r] = {
            .lse = T(z),
            .lse_low = low_part<T>(z),
            .a0 = T(a[row] + 2 * b[row] * z),
            .b = dense ? c[row] : T(0),
            .pick = pick_of.data + row * picks};
    }
    if (!any) continue;
    GradSinks<T> out;
    if (wanted.input) {
      out.input = input_sum.get<T>();
      std::fill_n(out.input, count * dim, T(0));
    }
    if (wanted.weight) out.weight = data<T>(grads.weight);
    if (wanted.bias) out.bias = data<T>(grads.bias);
    else if (!columns.empty()) out.bias = columns.data();
    if (!sums.empty()) out.sums = sums.data() + begin;
    out.fresh = begin == 0;
    CoefGradient<T> gradient(head, begin, dense, coefs.data());
    sweep.grads(0, head.segments(), true, gradient, out);
    if (wanted.input) own_input(head, begin, count, sums.data() + begin, out.input);
    if (wanted.input) store_rows(head, out.input, begin, count, grads.input);
  }
  if (any && wanted.weight && active > 0) own_weight(head, 0, head.vocab, columns.data(), data<T>(grads.weight));
  for (size_t i = 0; wanted.scale && i < sums.size(); ++i) data<T>(grads.scale)[head.rows[i]] = sums[i].scale;
  *data<T>(loss) = T(total);
  return {loss, lse, grads.input, grads.weight, grads.bias, grads.scale};
}

Outputs run(
    const HeadArgs& args, const Tensor& loss_coef, const Tensor& index_coef, const std::vector<bool>& needs_grad) {
  const Wanted wanted(args.op, needs_grad);
  const auto of = args.input.scalar_type() == ScalarType::Double ? forward_of<double> : forward_of<float>;
  return of(args, loss_coef, index_coef, wanted);
}

Outputs cce_forward(
    const Tensor& input, const Tensor& linear_weight, const std::optional<Tensor>& linear_bias,
    const std::optional<Tensor>& scale, const Tensor& index, const std::optional<Tensor>& aux,
    const std::optional<Tensor>& active, double softcap, double margin, const Tensor& loss_coef,
    const Tensor& index_coef, std::vector<bool> needs_grad) {
  const std::optional<Tensor> picks(index);
  const HeadArgs args{"cce_forward", input, linear_weight, linear_bias, scale, picks, aux, active, softcap, margin};
  return run(args, loss_coef, index_coef, needs_grad);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> harmonic_forward(
    const Tensor& input, const Tensor& linear_weight, const Tensor& rows, const Tensor& columns, const Tensor& index,
    const std::optional<Tensor>& active, std::string kind, double power, const Tensor& loss_coef,
    const Tensor& index_coef, std::vector<bool> needs_grad) {
  const PointArgs points("harmonic_forward", input, linear_weight, rows, columns, index, active, kind, power);
  const HeadArgs& args = points.head;
  const auto [loss, lse, grad_input, grad_weight, grad_bias, grad_scale] =
      run(args, loss_coef, index_coef, of_points(args.op, needs_grad));
  return {loss, lse, grad_input, grad_weight};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lossk, CPU, m) {
  m.impl("cce_forward", TORCH_BOX(&cce_forward));
  m.impl("harmonic_forward", TORCH_BOX(&harmonic_forward));
}

}  // namespace lossk
