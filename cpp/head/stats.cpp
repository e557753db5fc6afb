// linear_stats and its backward on the CPU, schemas in ops.cpp.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "head/recompute.h"

namespace lossk {
namespace {

using StatsOutputs = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

template <class T>
StatsOutputs stats_of(const HeadArgs& args, bool full, bool sketched) {
  const Head<T> head(args);
  const int64_t n = head.total, active = head.rows.size();
  Tensor stats = zeros(args.op, args.input, {full ? 12 : 3, n}, scalar_type_of<T>);
  Tensor logits = zeros(args.op, args.input, {n, head.picks}, scalar_type_of<T>);
  Tensor logp = zeros(args.op, args.input, {n, head.picks}, scalar_type_of<T>);
  Tensor argmax = zeros(args.op, args.input, {full ? n : 0}, ScalarType::Long);
  if (sketched) Sketch::check_vocab(args.op, head.vocab);
  // Its shape must not depend on how many rows are active: the blocks of those that are come first, then zeros.
  Tensor sketch =
      zeros(args.op, args.input, {sketched ? ceil_div(n, Sketch::kRows) : 0, head.vocab}, ScalarType::BFloat16);
  int64_t chunk = rows_per_chunk(head, active);
  if (sketched) chunk = round_up(chunk, Sketch::kRows);
  const std::vector<double> reference = sketched ? estimate_lse(args, head, chunk) : std::vector<double>();
  Sweep<T> sweep(head, chunk, 0);
  std::vector<RowState<double>> states(chunk);
  T *out = data<T>(stats), *picked = data<T>(logits);
  for (int64_t begin = 0; begin < active; begin += chunk) {
    const int64_t count = std::min(chunk, active - begin);
    const Sketch of{data<c10::BFloat16>(sketch), reference.data() + begin};
    sweep.take_rows(begin, count);
    sweep.stats(full, false, states.data(), picked, sketched ? &of : nullptr);
    for (int64_t r = 0; r < count; ++r) {
      const int64_t row = head.rows[begin + r];
      RowState<double>& s = states[r];
      const double lse_excl = s.lse();
      if (full) add_picks(head, row, picked, s);
      const double lse = s.lse();
      for (int64_t k = 0; k < head.picks; ++k)  // from the unrounded lse: nothing cancels at large logits
        if (head.index(row)[k] >= 0) data<T>(logp)[row * head.picks + k] = T(picked[row * head.picks + k] - lse);
      out[row] = T(lse), out[n + row] = low_part<T>(lse);
      out[2 * n + row] = sketched && !full && (args.softcap > 0 || args.distance) ? T(s.slope / s.sum) : T(1);
      if (!full) continue;
      const double values[] = {lse_excl,     low_part<T>(lse_excl),          s.mean_logit(), s.entropy(), s.lse2(),
                               s.aux_mean(), s.aux_dot - head.aux_sum * lse, s.top,          s.min};
      for (int64_t k = 0; k < 9; ++k) out[(3 + k) * n + row] = T(values[k]);
      data<int64_t>(argmax)[row] = s.argmax;
    }
  }
  return {stats, logits, logp, argmax, sketch, zeros(args.op, args.input, {n, 0}, ScalarType::Short)};
}

StatsOutputs run(const HeadArgs& args, bool full, double tau) {
  check(tau >= 0 && tau < 1, args.op, ": tau must be in (0, 1), or 0 for an exact backward, got ", tau);
  const auto of = args.input.scalar_type() == ScalarType::Double ? stats_of<double> : stats_of<float>;
  return of(args, full, tau > 0);
}

void check_keep(const char* op, int64_t keep) { check(keep == 0, op, ": keep must be 0 on a CPU, got ", keep); }

StatsOutputs linear_stats(
    const Tensor& input, const Tensor& linear_weight, const std::optional<Tensor>& linear_bias,
    const std::optional<Tensor>& scale, const std::optional<Tensor>& index, const std::optional<Tensor>& aux,
    const std::optional<Tensor>& active, double softcap, double margin, bool full, double tau, bool, int64_t keep) {
  check_keep("linear_stats", keep);
  const HeadArgs args{"linear_stats", input, linear_weight, linear_bias, scale, index, aux, active, softcap, margin};
  return run(args, full, tau);
}

std::tuple<Tensor, Tensor> harmonic_stats(
    const Tensor& input, const Tensor& linear_weight, const Tensor& rows, const Tensor& columns, const Tensor& index,
    const std::optional<Tensor>& active, std::string kind, double power, bool dense, double tau, bool) {
  const PointArgs points("harmonic_stats", input, linear_weight, rows, columns, index, active, kind, power);
  const HeadArgs& args = points.head;
  const auto [stats, logits, logp, argmax, sketch, kept] = run(args, dense, tau);
  const int64_t n = input.size(0);
  Tensor out = zeros(args.op, input, {4, n}, stats.scalar_type());
  const auto copy = [&, &from = stats]<class T>(T) {
    const T* of = data<T>(from);
    std::copy_n(of, 3 * n, data<T>(out));
    for (int64_t i = 0; dense && i < n; ++i)  // aux_logp + V lse
      data<T>(out)[3 * n + i] = T(of[9 * n + i] + double(linear_weight.size(0)) * (double(of[i]) + of[n + i]));
  };
  input.scalar_type() == ScalarType::Double ? copy(double()) : copy(float());
  return {out, sketch};
}

template <class T>
GradTensors backward_of(
    const HeadArgs& args, const Tensor& lse, const std::optional<Tensor>& lse_excl, const Tensor& row_coef,
    const std::optional<Tensor>& index_coef, const Wanted& wanted, bool weight_grad_fp32) {
  const Head<T> head(args);
  const int64_t n = head.total;
  const int64_t most = args.distance ? 2 : 6;  // of a distance a0 and b alone
  const bool full = row_coef.dim() == 2 && row_coef.size(0) == most;
  check_tensor(args.op, "lse", lse, {2, n}, scalar_type_of<T>);
  check_tensor(args.op, "row_coef", row_coef, {full ? most : 1, n}, scalar_type_of<T>);
  if (lse_excl.has_value()) check_tensor(args.op, "lse_excl", *lse_excl, {2, n}, scalar_type_of<T>);
  if (index_coef.has_value()) check_tensor(args.op, "index_coef", *index_coef, {n, head.picks}, scalar_type_of<T>);
  const Optional<T> lse_of(lse), excl_of(lse_excl), coef_of(row_coef), pick_of(index_coef);
  std::vector<RowCoef<T>> coefs(rows_of_block(head));
  return recompute(args, head, wanted, weight_grad_fp32, [&](int64_t begin, int64_t count) {
    for (int64_t r = 0; r < count; ++r) {
      const int64_t row = head.rows[begin + r];
      const auto a = [&](int64_t k) {
        if (args.distance && k == 5) k = 1;
        else if (args.distance && k > 0) return T(0);
        return full || k == 0 ? coef_of.data[k * n + row] : T(0);
      };
      const T* excl = excl_of.data;
      coefs[r] = {
          .lse = lse_of.data[row],
          .lse_low = lse_of.data[n + row],
          .lse_excl = excl ? excl[row] : T(0),
          .lse_excl_low = excl ? excl[n + row] : T(0),
          .a0 = a(0),
          .a1 = a(1),
          .a2 = a(2),
          .a3 = a(3),
          .aX = a(4),
          .b = a(5),
          .pick = pick_of.data ? pick_of.data + row * head.picks : nullptr};
    }
    return CoefGradient<T>(head, begin, full, coefs.data());
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> linear_stats_backward(
    const Tensor& input, const Tensor& linear_weight, const std::optional<Tensor>& linear_bias,
    const std::optional<Tensor>& scale, const std::optional<Tensor>& index, const std::optional<Tensor>& aux,
    const std::optional<Tensor>& active, double softcap, double margin, const Tensor& lse,
    const std::optional<Tensor>& lse_excl, const Tensor& row_coef, const std::optional<Tensor>& index_coef,
    const std::optional<Tensor>&, const std::optional<Tensor>&, int64_t keep, std::vector<bool> needs_grad,
    bool weight_grad_fp32) {
  check_keep("linear_stats_backward", keep);
  const HeadArgs args{
      "linear_stats_backward", input, linear_weight, linear_bias, scale, index, aux, active, softcap, margin};
  const Wanted wanted(args.op, needs_grad);
  const auto run = input.scalar_type() == ScalarType::Double ? backward_of<double> : backward_of<float>;
  return run(args, lse, lse_excl, row_coef, index_coef, wanted, weight_grad_fp32).tuple();
}

std::tuple<Tensor, Tensor> harmonic_backward(
    const Tensor& input, const Tensor& linear_weight, const Tensor& rows, const Tensor& columns, const Tensor& index,
    const std::optional<Tensor>& active, std::string kind, double power, const Tensor& lse, const Tensor& row_coef,
    const Tensor& index_coef, std::vector<bool> needs_grad, bool weight_grad_fp32) {
  const std::optional<Tensor> pick_coef(index_coef);
  const PointArgs points("harmonic_backward", input, linear_weight, rows, columns, index, active, kind, power);
  const HeadArgs& args = points.head;
  const Wanted wanted(args.op, of_points(args.op, needs_grad));
  const auto run = input.scalar_type() == ScalarType::Double ? backward_of<double> : backward_of<float>;
  const GradTensors grads = run(args, lse, kAbsent, row_coef, pick_coef, wanted, weight_grad_fp32);
  return {grads.input, grads.weight};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lossk, CPU, m) {
  m.impl("linear_stats", TORCH_BOX(&linear_stats));
  m.impl("linear_stats_backward", TORCH_BOX(&linear_stats_backward));
  m.impl("harmonic_stats", TORCH_BOX(&harmonic_stats));
  m.impl("harmonic_backward", TORCH_BOX(&harmonic_backward));
}

}  // namespace lossk
