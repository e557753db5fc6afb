// elementwise_stats and elementwise_backward on a GPU, schemas in cpp/ops.cpp.
#include "head/elementwise/params.h"

#include "head/elementwise_args.h"
#include "head/gradients.h"
#include "head/stats/params.h"

namespace lossk::head {
namespace {

// Rows whose pairs are there at once, and what the numbers of these may take.
#ifndef LOSSK_PAIR_ROWS  // tests want several bands and parts of few
#define LOSSK_PAIR_ROWS 8192
#define LOSSK_PAIR_BYTES kWorkspaceBytes
#endif
constexpr int kPartUnit = 128;             // of columns: a multiple of every chain's and tile's
constexpr int64_t kMostColumns = 1 << 20;  // of a part, for a grid's height

Tensor by_rows(const Tensor& x) { return x.dim() != 2 || x.stride(1) == 1 ? x : torch::stable::contiguous(x); }

struct Call {
  explicit Call(const ElementwiseArgs& a)
      : input(by_rows(a.input)),
        weight(by_rows(a.linear_weight)),
        x({a.op, input, weight, kAbsent, kAbsent, kAbsent, kAbsent, a.active, 0, 0}),
        metric(metric_of<float>(a, x.d)) {
    check_beside<float>(a, x.n, x.v);
    check_device(a.op, "target", a.target, a.input);
    if (a.row_term.has_value()) check_device(a.op, "row_term", *a.row_term, a.input);
    if (a.column_term.has_value()) check_device(a.op, "column_term", *a.column_term, a.input);
    target.emplace(a.target), row_term.emplace(a.row_term), column_term.emplace(a.column_term);
  }

  // Columns first .. first + columns, rows row .. row + rows.
  Pairs pairs(int first, int columns, int row, int rows) const {
    Head h = x.rows(row, rows);
    h.first = first, h.columns = columns;
    return {
        metric,
        x.type,
        {input.data_ptr(), input.stride(0)},
        {weight.data_ptr(), weight.stride(0)},
        x.d,
        h,
        target->data,
        row_term->data,
        column_term->data,
        x.v};
  }

  const Tensor input, weight;
  const Operands x;
  const Metric<float> metric;
  std::optional<Optional<int64_t>> target;
  std::optional<Optional<float>> row_term, column_term;
};

Tensor elementwise_stats(
    const Tensor& input, const Tensor& linear_weight, const Tensor& target, const std::optional<Tensor>& active,
    const std::optional<Tensor>& row_term, const std::optional<Tensor>& column_term, std::string kind, double p,
    double power, double eps) {
  const Call c({"elementwise_stats", input, linear_weight, target, active, row_term, column_term, kind, p, power, eps});
  const Operands& x = c.x;
  const Tensor stats = x.zeros({4, x.n}, ScalarType::Float);
  if (x.n == 0) return stats;
  float* at_target = data<float>(stats) + 2 * int64_t{x.n};
  x.run(harmonic_sums({c.pairs(0, x.v, 0, x.n), at_target, nullptr, 0}, x.device.stream));

  const int segment = segment_of(x.v), segments = ceil_div(x.v, segment);
  const int band = std::min(x.n, LOSSK_PAIR_ROWS);
  const Tensor partial = x.scratch({3, segments, band}, ScalarType::Float);
  auto* partials = static_cast<HarmonicPartial*>(partial.data_ptr());
  for (int row = 0; row < x.n; row += band) {
    const Pairs of = c.pairs(0, x.v, row, std::min(band, x.n - row));
    x.run(harmonic_sums({of, at_target, partials, segment}, x.device.stream));
    x.run(merge_harmonic({partials, segments, of.head, x.n, data<float>(stats)}, x.device.stream));
  }
  return stats;
}

// Parts of the vocabulary outside, bands of rows inside: d weight is summed over all rows before it is rounded, once.
void sweep(const Call& c, const HarmonicRow* rows, const Wanted& wanted, const Gradients& grads) {
  const Operands& x = c.x;
  const bool terms = is_divided(c.metric.kind) && (wanted.scale || wanted.bias);
  const bool two = has_two_numbers(c.metric) || terms;
  const int band = std::min(x.n, LOSSK_PAIR_ROWS);
  const int64_t fit = LOSSK_PAIR_BYTES / ((two ? 8 : 4) * int64_t{band}) / kPartUnit * kPartUnit;
  const int part =
      static_cast<int>(std::clamp<int64_t>(fit, kPartUnit, std::min<int64_t>(round_up(x.v, kPartUnit), kMostColumns)));
  const Tensor a = x.scratch({band, part}, ScalarType::Float), e = x.scratch({two ? band : 0, part}, ScalarType::Float);
  const Tensor input_sum = x.scratch({wanted.input && part < x.v ? x.n : 0, x.d}, ScalarType::Float);
  const Tensor weight_sum = x.scratch({wanted.weight && band < x.n ? part : 0, x.d}, ScalarType::Float);
  float* seconds = two ? data<float>(e) : nullptr;
  const auto is_wide = [](const Tensor& grad) { return grad.scalar_type() == ScalarType::Float; };

  for (int first = 0; first < x.v; first += part)
    for (int row = 0; row < x.n; row += band) {
      const int columns = std::min(part, x.v - first), here = std::min(band, x.n - row);
      const Pairs of = c.pairs(first, columns, row, here);
      x.run(pair_coefs({of, rows, data<float>(a), seconds, part}, x.device.stream));
      PairSlopesParams slopes{of, data<float>(a), seconds, part};
      if (wanted.input) {
        slopes.of_rows = true, slopes.first = first == 0, slopes.last = first + columns == x.v;
        slopes.sum = data<float>(input_sum), slopes.out = grads.input.data_ptr(), slopes.wide = is_wide(grads.input);
        x.run(pair_slopes(slopes, x.device.stream));
      }
      if (wanted.weight) {
        slopes.of_rows = false, slopes.first = row == 0, slopes.last = row + here == x.n;
        slopes.sum = data<float>(weight_sum), slopes.out = grads.weight.data_ptr();
        slopes.wide = is_wide(grads.weight);
        x.run(pair_slopes(slopes, x.device.stream));
      }
      if (!terms) continue;
      const TermSumsParams sums{
          of.head, seconds, part, wanted.scale ? data<float>(grads.scale) : nullptr,
          wanted.bias ? data<float>(grads.bias) : nullptr};
      x.run(term_sums(sums, x.device.stream));
    }
}

std::tuple<Tensor, Tensor, Tensor, Tensor> elementwise_backward(
    const Tensor& input, const Tensor& linear_weight, const Tensor& target, const std::optional<Tensor>& active,
    const std::optional<Tensor>& row_term, const std::optional<Tensor>& column_term, std::string kind, double p,
    double power, double eps, const Tensor& stats, const Tensor& row_coef, std::vector<bool> needs_grad,
    bool weight_grad_fp32) {
  const char* op = "elementwise_backward";
  check(
      needs_grad.size() == 4, op, ": needs_grad must have 4 entries (input, weight, row_term, column_term), got ",
      needs_grad.size());
  const Wanted wanted(op, {needs_grad[0], needs_grad[1], needs_grad[3], needs_grad[2]});
  const Call c({op, input, linear_weight, target, active, row_term, column_term, kind, p, power, eps});
  const Operands& x = c.x;
  const auto stats_of = coefficients(x, "stats", stats, {4, x.n});
  const auto coef_of = coefficients(x, "row_coef", row_coef, {2, x.n});
  const auto make = [&](bool want, std::vector<int64_t> shape, ScalarType dtype) {
    return x.zeros(want ? shape : std::vector<int64_t>{0}, dtype);
  };
  const ScalarType dtype = input.scalar_type(), weight_dtype = weight_grad_fp32 ? ScalarType::Float : dtype;
  const bool whole = wanted.weight && x.n > 0;  // written by the sweep
  const Gradients grads{
      make(wanted.input, {x.n, x.d}, dtype),  // rows not active stay 0
      whole ? x.scratch({x.v, x.d}, weight_dtype) : make(wanted.weight, {x.v, x.d}, weight_dtype),
      make(wanted.bias, {x.v}, ScalarType::Float), make(wanted.scale, {x.n}, ScalarType::Float)};
  if (x.n > 0 && x.v > 0 && wanted.any()) {
    const Tensor facts = x.scratch({x.n, int64_t(sizeof(HarmonicRow) / 4)}, ScalarType::Float);
    auto* rows = static_cast<HarmonicRow*>(facts.data_ptr());
    x.run(harmonic_rows({c.metric, x.head, x.v, x.n, stats_of.data, coef_of.data, rows}, x.device.stream));
    sweep(c, rows, wanted, grads);
  }
  return {grads.input, grads.weight, grads.scale, grads.bias};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lossk, LOSSK_DISPATCH, m) {
  m.impl("elementwise_stats", TORCH_BOX(&elementwise_stats));
  m.impl("elementwise_backward", TORCH_BOX(&elementwise_backward));
}

}  // namespace lossk::head
