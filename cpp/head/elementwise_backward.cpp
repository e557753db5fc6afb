// elementwise_backward on the CPU, schema in ops.cpp. Distances are made again, a chunk of rows and of columns at a
// time, and turned into the numbers of its pairs; then whoever owns a row of a gradient sums over them.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "head/elementwise_call.h"
#include "head/grad_outputs.h"

namespace lossk {
namespace {

template <class T>
class Backward {
 public:
  Backward(
      const ElementwiseArgs& args, const Tensor& stats, const Tensor& row_coef, const Wanted& wanted,
      bool weight_grad_fp32)
      : args_(args), call_(args), wanted_(wanted), active_(call_.head.rows.size()) {
    const int64_t n = call_.head.total, d = call_.head.dim, v = call_.head.vocab;
    check_tensor(args.op, "stats", stats, {4, n}, scalar_type_of<T>);
    check_tensor(args.op, "row_coef", row_coef, {2, n}, scalar_type_of<T>);
    const auto make = [&](bool want, std::vector<int64_t> shape, ScalarType dtype) {
      return zeros(args.op, args.input, want ? shape : std::vector<int64_t>{0}, dtype);
    };
    const ScalarType dtype = call_.head.dtype, wide = scalar_type_of<T>;
    const ScalarType weight_dtype = weight_grad_fp32 ? wide : dtype;
    const bool whole = wanted.weight && active_ > 0;  // written by the sweep
    grads_ = {
        make(wanted.input, {n, d}, dtype),
        whole ? empty(args.op, args.input, {v, d}, weight_dtype) : make(wanted.weight, {v, d}, weight_dtype),
        make(wanted.bias, {v}, wide), make(wanted.scale, {n}, wide)};
    read_coefs(stats, row_coef);
  }

  std::tuple<Tensor, Tensor, Tensor, Tensor> run() {
    if (active_ > 0 && wanted_.any()) sweep();
    return {grads_.input, grads_.weight, grads_.scale, grads_.bias};
  }

 private:
  using Call = ElementwiseCall<T>;

  void read_coefs(const Tensor& stats, const Tensor& row_coef) {
    const Optional<T> s(stats), c(row_coef);
    const int64_t n = call_.head.total;
    const double power = call_.metric.power, eps = call_.metric.eps, others = call_.head.vocab - 1;
    // A pair is left out where dL/dd is at most half an ulp of 1 / V of the target's: all of a row's together are then
    // less than the rounding of the target's own term in the sums that they would join.
    const double negligible = std::numeric_limits<T>::epsilon() / 2 / call_.head.vocab;
    for (int64_t row : call_.head.rows) {
      const double lse = double(s.data[row]) + s.data[3 * n + row], d = s.data[2 * n + row], a = c.data[row],
                   b = c.data[n + row];
      const double target = 2 * power * d / (d * d + eps) * (a * -std::expm1(-lse) + b * others);
      coefs_.push_back({T(lse), low_part<T>(lse), T(a), T(b), T(target), T(std::abs(target) * negligible)});
      at_target_.push_back(T(d));
    }
  }

  // Chunks of the vocabulary outside, of rows inside: d weight is summed over all rows before it is rounded, once.
  void sweep() {
    const auto& head = call_.head;
    const int64_t dim = head.dim, nr = call_.kernels.columns, most = workers(), chunk = call_.rows_of_chunk(2);
    const bool two = call_.kernels.two(call_.metric) || (call_.divided && (wanted_.scale || wanted_.bias));
    const int64_t per_segment = (3 * call_.segment_elements() + (two ? 2 : 1) * kSegment * chunk) * int64_t(sizeof(T));
    const int64_t together = std::clamp<int64_t>((32 << 20) / per_segment, 1, head.segments());
    stride_ = together * kSegment;

    const Scratch gathered(args_.op, head.gather_bytes(chunk)), rows(args_.op, call_.row_elements(chunk) * sizeof(T));
    const Scratch rows_along(args_.op, call_.along_elements(chunk) * sizeof(T));
    const Scratch columns(args_.op, call_.segment_elements() * sizeof(T), together);
    const Scratch columns_along(args_.op, call_.along_elements(kSegment) * sizeof(T), together);
    const Scratch a(args_.op, chunk * stride_ * sizeof(T)), e(args_.op, two ? chunk * stride_ * sizeof(T) : 0);
    const Scratch tiles(args_.op, 2 * Call::kRows * kSegment * sizeof(T), most);
    const Scratch lives(args_.op, call_.kernels.scratch_bytes, most);
    const Scratch input_sum(args_.op, wanted_.input ? active_ * dim * sizeof(T) : 0);
    const Scratch weight_sum(args_.op, wanted_.weight ? stride_ * dim * sizeof(T) : 0);
    a_ = a.get<T>(), e_ = two ? e.get<T>() : nullptr;
    if (wanted_.input) std::fill_n(input_sum.get<T>(), active_ * dim, T(0));

    for (int64_t s0 = 0; s0 < head.segments(); s0 += together) {
      const int64_t s1 = std::min(s0 + together, head.segments()), first = s0 * kSegment;
      const int64_t width = std::min(s1 * kSegment, head.vocab) - first;
      parallel_items(s1 - s0, most, [&](int64_t, int64_t s) { call_.pack_columns(s0 + s, columns.get<T>(s)); });
      for (int64_t s = s0; s < s1; ++s) call_.pack_along(s, columns_along.get<T>(s - s0));
      if (wanted_.weight) std::fill_n(weight_sum.get<T>(), width * dim, T(0));
      for (int64_t begin = 0; begin < active_; begin += chunk) {
        const int64_t count = std::min(chunk, active_ - begin);
        const auto in = head.gather(begin, count, gathered.get<char>());
        call_.pack_rows(in, count, rows.get<T>());
        call_.pack_along(in, count, count, rows_along.get<T>());
        make_pairs(begin, count, s0, s1, rows.get<T>(), columns, tiles);
        const auto row_along = [&](int64_t i) { return Along<T>{rows_along.get<T>() + i * nr, count * nr, 0}; };
        const auto column_along = [&](int64_t v) {
          return Along<T>{columns_along.get<T>(v / kSegment) + v % kSegment * nr, kSegment * nr, 0};
        };
        T* input_rows = input_sum.get<T>() + begin * dim;
        if (wanted_.input) sum(count, width, stride_, 1, T(1), lives, input_rows, row_along, column_along);
        if (wanted_.weight) sum(width, count, 1, stride_, T(-1), lives, weight_sum.get<T>(), column_along, row_along);
        if (call_.divided && wanted_.bias) sum_columns(first, count, width);
      }
      if (wanted_.weight)
        parallel_ranges(width, [&](int64_t v0, int64_t v1) {
          round_to(weight_sum.get<T>() + v0 * dim, (v1 - v0) * dim, grads_.weight, (first + v0) * dim);
        });
    }
    if (wanted_.input) store_rows(head, input_sum.get<T>(), 0, active_, grads_.input);
  }

  void make_pairs(
      int64_t begin, int64_t count, int64_t s0, int64_t s1, const T* rows, const Scratch& columns,
      const Scratch& tiles) {
    const int64_t blocks = ceil_div(count, Call::kRows), segments = s1 - s0;
    const bool second_of_sums = call_.kernels.two(call_.metric);
    std::vector<T> term_sums(count * segments);
    parallel_items(segments * blocks, workers(), [&](int64_t worker, int64_t item) {
      const int64_t s = item / blocks, r0 = item % blocks * Call::kRows, here = std::min(Call::kRows, count - r0);
      T *d = tiles.get<T>(worker), *second = second_of_sums ? d + Call::kRows * kSegment : nullptr;
      call_.distances(begin, r0, here, rows, s0 + s, columns.get<T>(s), d, second);
      for (int64_t i = 0; i < here; ++i) {
        const int64_t row = begin + r0 + i, at = (r0 + i) * stride_ + s * kSegment;
        T* e = e_ ? e_ + at : nullptr;
        if (second) std::copy_n(second + i * kSegment, kSegment, e);
        const auto pairs = call_.row_of(row, s0 + s, d + i * kSegment, at_target_[row]);
        term_sums[(r0 + i) * segments + s] = call_.kernels.coefs(call_.metric, pairs, coefs_[row], a_ + at, e);
      }
    });
    if (!call_.divided || !wanted_.scale) return;
    for (int64_t i = 0; i < count; ++i)
      for (int64_t s = 0; s < segments; ++s)
        data<T>(grads_.scale)[call_.head.rows[begin + i]] += term_sums[i * segments + s];
  }

  // Gradients of `owns` points by their pairs with `others`, along(first) where either lie.
  template <class OwnAlong, class OtherAlong>
  void sum(
      int64_t owns, int64_t others, int64_t own_step, int64_t other_step, T sign, const Scratch& lives, T* to,
      const OwnAlong& own_along, const OtherAlong& other_along) const {
    const int64_t dim = call_.head.dim, features = 16 * call_.kernels.columns;  // few rows have work for all threads
    const int64_t blocks = ceil_div(owns, kOwn), cuts = ceil_div(dim, features);
    parallel_items(blocks * cuts, workers(), [&](int64_t worker, int64_t item) {
      const int64_t i = item / cuts * kOwn, k = item % cuts * features;
      for (int64_t l = 0; l < others; l += kSegment) {
        PairGradient<T> g{
            dim,
            k,
            std::min(k + features, dim),
            own_along(i),
            other_along(l),
            a_ + i * own_step + l * other_step,
            e_ ? e_ + i * own_step + l * other_step : nullptr,
            own_step,
            other_step,
            sign,
            to + i * dim};
        g.own.count = std::min(kOwn, owns - i), g.other.count = std::min(kSegment, others - l);
        call_.kernels.gradient(call_.metric, g, lives.get<char>(worker));
      }
    });
  }

  void sum_columns(int64_t first, int64_t count, int64_t width) {
    T* to = data<T>(grads_.bias) + first;
    parallel_ranges(width, [&](int64_t v0, int64_t v1) {
      for (int64_t i = 0; i < count; ++i)
        for (int64_t v = v0; v < v1; ++v) to[v] += e_[i * stride_ + v];
    });
  }

  const ElementwiseArgs& args_;
  const Call call_;
  const Wanted& wanted_;
  const int64_t active_;
  GradTensors grads_;                   // bias: of column_term, scale: of row_term
  std::vector<HarmonicCoef<T>> coefs_;  // of the active rows
  std::vector<T> at_target_;
  T *a_ = nullptr, *e_ = nullptr;  // numbers of the pairs, [chunk, stride_]
  int64_t stride_ = 0;
};

std::tuple<Tensor, Tensor, Tensor, Tensor> elementwise_backward(
    const Tensor& input, const Tensor& linear_weight, const Tensor& target, const std::optional<Tensor>& active,
    const std::optional<Tensor>& row_term, const std::optional<Tensor>& column_term, std::string kind, double p,
    double power, double eps, const Tensor& stats, const Tensor& row_coef, std::vector<bool> needs_grad,
    bool weight_grad_fp32) {
  const ElementwiseArgs args{
      "elementwise_backward", input, linear_weight, target, active, row_term, column_term, kind, p, power, eps};
  check(
      needs_grad.size() == 4, args.op, ": needs_grad must have 4 entries (input, weight, row_term, column_term), got ",
      needs_grad.size());
  const Wanted wanted(args.op, {needs_grad[0], needs_grad[1], needs_grad[3], needs_grad[2]});
  if (input.scalar_type() == ScalarType::Double)
    return Backward<double>(args, stats, row_coef, wanted, weight_grad_fp32).run();
  return Backward<float>(args, stats, row_coef, wanted, weight_grad_fp32).run();
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lossk, CPU, m) { m.impl("elementwise_backward", TORCH_BOX(&elementwise_backward)); }

}  // namespace lossk
