// linear_divergence and its backward on the CPU, schemas in ops.cpp.
#include <torch/csrc/stable/library.h>

#include <string>
#include <tuple>

#include "head/beside.h"

namespace lossk {

namespace {

struct TwoHeads {
  HeadArgs student, teacher;
  Compare kind;
  double beta;
};

template <class T>
void check_same_rows(const TwoHeads& args, const Head<T>& z, const Head<T>& u) {
  const char* op = args.student.op;
  check(u.total == z.total, op, ": teacher_input must have ", z.total, " rows, got ", u.total);
  check(u.vocab == z.vocab, op, ": teacher_weight must have ", z.vocab, " rows, got ", u.vocab);
}

template <class T>
Tensor divergence_of(const TwoHeads& args) {
  const HeadArgs& student = args.student;
  const Head<T> z(student), u(args.teacher);
  check_same_rows(args, z, u);
  const int64_t n = z.total, active = z.rows.size();
  Tensor stats = zeros(student.op, student.input, {6, n}, scalar_type_of<T>);
  if (z.vocab == 0) return stats;
  const int64_t chunk = rows_per_chunk(z, active);
  const bool needs_lse = of_probabilities(args.kind) && !in_one_pass(args.kind);
  Sweep<T> sweep(z, chunk, 0), teacher(u, chunk, 0);
  std::vector<RowState<double>> states(needs_lse ? chunk : 0);
  std::vector<Normaliser<T>> lse_z(chunk), lse_u(chunk);
  std::vector<CompareTotals> totals(chunk);
  for (int64_t begin = 0; begin < active; begin += chunk) {
    const int64_t count = std::min(chunk, active - begin);
    sweep.take_rows(begin, count), teacher.take_rows(begin, count);
    const auto lse_of = [&](Sweep<T>& of, std::vector<Normaliser<T>>& to) {
      of.stats(false, false, states.data(), nullptr);
      for (int64_t r = 0; r < count; ++r) to[r] = {T(states[r].lse()), low_part<T>(states[r].lse())};
    };
    if (needs_lse) lse_of(sweep, lse_z), lse_of(teacher, lse_u);
    compare(
        z, sweep, {.head = &u, .sweep = &teacher}, args.kind, T(args.beta), begin, count, lse_z.data(), lse_u.data(),
        totals.data());
    for (int64_t r = 0; r < count; ++r) {
      const CompareTotals& t = totals[r];
      if (in_one_pass(args.kind)) {
        lse_z[r] = {T(t.lse_z), low_part<T>(t.lse_z)};
        lse_u[r] = {T(t.lse_u), low_part<T>(t.lse_u)};
      }
      const T values[] = {lse_z[r].lse, lse_z[r].low, lse_u[r].lse, lse_u[r].low, T(t.a), T(t.b)};
      for (int64_t k = 0; k < 6; ++k) data<T>(stats)[k * n + z.rows[begin + r]] = values[k];
    }
  }
  return stats;
}

template <class T>
std::vector<Tensor> backward_of(
    const TwoHeads& args, const Tensor& stats, const Tensor& row_coef, const Wanted (&wanted)[2],
    const std::vector<bool>& weight_grad_fp32) {
  const HeadArgs& student = args.student;
  const Head<T> z(student), u(args.teacher);
  check_same_rows(args, z, u);
  const int64_t n = z.total;
  check_tensor(student.op, "stats", stats, {6, n}, scalar_type_of<T>);
  check_tensor(student.op, "row_coef", row_coef, {n}, scalar_type_of<T>);
  const Optional<T> stats_of(stats), coef_of(row_coef);
  std::vector<CompareCoef<T>> coefs(rows_of_block(z));
  std::vector<Tensor> grads;
  for (const bool by_u : {false, true}) {
    const Head<T>&own = by_u ? u : z, &other = by_u ? z : u;
    Sweep<T> beside(other, wanted[by_u].any() ? rows_of_block(other) : 0, 0);
    const GradTensors g = recompute(
        by_u ? args.teacher : student, own, wanted[by_u], weight_grad_fp32[by_u], [&](int64_t begin, int64_t count) {
          beside.take_rows(begin, count);
          for (int64_t r = 0; r < count; ++r) {
            const T* s = stats_of.data + own.rows[begin + r];
            coefs[r] = {{s[0], s[n]}, {s[2 * n], s[3 * n]}, s[4 * n], s[5 * n], coef_of.data[own.rows[begin + r]]};
          }
          return CompareGradient<T>(
              own, begin, args.kind, T(args.beta), by_u, coefs.data(), {.head = &other, .sweep = &beside});
        });
    grads.insert(grads.end(), {g.input, g.weight, g.bias, g.scale});
  }
  return grads;
}

TwoHeads two_heads(
    const char* op, const Tensor& input, const Tensor& linear_weight, const std::optional<Tensor>& linear_bias,
    const std::optional<Tensor>& scale, const Tensor& teacher_input, const Tensor& teacher_weight,
    const std::optional<Tensor>& teacher_bias, const std::optional<Tensor>& teacher_scale,
    const std::optional<Tensor>& active, double softcap, double teacher_softcap, const std::string& kind, double beta) {
  const bool wide = input.scalar_type() == ScalarType::Double;
  check(
      wide == (teacher_input.scalar_type() == ScalarType::Double), op,
      ": teacher_input must be float64 if and only if input is, got ", dtype_name(teacher_input.scalar_type()));
  return {
      {op, input, linear_weight, linear_bias, scale, kAbsent, kAbsent, active, softcap, 0},
      {op, teacher_input, teacher_weight, teacher_bias, teacher_scale, kAbsent, kAbsent, active, teacher_softcap, 0},
      compare_of(op, kind, true),
      beta};
}

Tensor linear_divergence(
    const Tensor& input, const Tensor& linear_weight, const std::optional<Tensor>& linear_bias,
    const std::optional<Tensor>& scale, const Tensor& teacher_input, const Tensor& teacher_weight,
    const std::optional<Tensor>& teacher_bias, const std::optional<Tensor>& teacher_scale,
    const std::optional<Tensor>& active, double softcap, double teacher_softcap, std::string kind, double beta) {
  const TwoHeads args = two_heads(
      "linear_divergence", input, linear_weight, linear_bias, scale, teacher_input, teacher_weight, teacher_bias,
      teacher_scale, active, softcap, teacher_softcap, kind, beta);
  return input.scalar_type() == ScalarType::Double ? divergence_of<double>(args) : divergence_of<float>(args);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> linear_divergence_backward(
    const Tensor& input, const Tensor& linear_weight, const std::optional<Tensor>& linear_bias,
    const std::optional<Tensor>& scale, const Tensor& teacher_input, const Tensor& teacher_weight,
    const std::optional<Tensor>& teacher_bias, const std::optional<Tensor>& teacher_scale,
    const std::optional<Tensor>& active, double softcap, double teacher_softcap, std::string kind, double beta,
    const Tensor& stats, const Tensor& row_coef, std::vector<bool> needs_grad, std::vector<bool> weight_grad_fp32) {
  const char* op = "linear_divergence_backward";
  const TwoHeads args = two_heads(
      op, input, linear_weight, linear_bias, scale, teacher_input, teacher_weight, teacher_bias, teacher_scale, active,
      softcap, teacher_softcap, kind, beta);
  check(needs_grad.size() == 8, op, ": needs_grad must have 8 entries, got ", needs_grad.size());
  check(weight_grad_fp32.size() == 2, op, ": weight_grad_fp32 must have 2 entries, got ", weight_grad_fp32.size());
  const Wanted wanted[] = {
      {op, {needs_grad.begin(), needs_grad.begin() + 4}}, {op, {needs_grad.begin() + 4, needs_grad.end()}}};
  const auto run = input.scalar_type() == ScalarType::Double ? backward_of<double> : backward_of<float>;
  const std::vector<Tensor> g = run(args, stats, row_coef, wanted, weight_grad_fp32);
  return {g[0], g[1], g[2], g[3], g[4], g[5], g[6], g[7]};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lossk, CPU, m) {
  m.impl("linear_divergence", TORCH_BOX(&linear_divergence));
  m.impl("linear_divergence_backward", TORCH_BOX(&linear_divergence_backward));
}

}  // namespace lossk
