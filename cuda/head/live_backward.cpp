// linear_live_backward on a GPU, schema in cpp/ops.cpp.
#include "head/live_products.h"
#include "head/own/params.h"

namespace lossk::head {
namespace {

// The backward of one call: which columns are live for which rows, the products of those, and what the others would
// have had. How long a list is the device alone knows: what is launched is for all of the vocabulary, and ends at once
// where there is nothing.
class LiveBackward {
 public:
  LiveBackward(
      Operands& x, const Coefs& coefs, const float* stats, bool full, const uint16_t* sketch, float tau, bool fill,
      const Wanted& wanted, const Gradients& grads)
      : x_(x),
        coefs_(coefs),
        full_(full),
        wanted_(wanted),
        grads_(grads),
        blocks_(ceil_div(x.n, kSketchRows)),
        lists_(ceil_div(x.n, kListRows)),
        terms_(fill || full ? blocks_ + full : 0),
        picked_(x.zeros({lists_, x.v}, ScalarType::Int)),
        general_(x.zeros({1}, ScalarType::Int)),
        ids_(x.scratch({lists_, x.v}, ScalarType::Int)),
        count_(x.scratch({lists_}, ScalarType::Int)),
        first_list_(x.scratch({x.v}, ScalarType::Int)),
        over_dead_(x.scratch({3, blocks_ + 1}, ScalarType::Double)),
        sums_(x.scratch({3, x.n}, ScalarType::Float)),
        of_columns_(x.zeros({distance() && wanted.weight ? x.v : 0}, ScalarType::Float)),
        mixed_(x.scratch({terms_, x.d}, ScalarType::Float)) {
    t_.head = x.head, t_.coefs = coefs, t_.stats = stats;
    t_.full = full, t_.fill = fill;
    t_.picked = reinterpret_cast<const uint32_t*>(data<int>(picked_)), t_.sketch = sketch;
    t_.lists = {data<int>(ids_), data<int>(count_)};
    t_.tau = tau, t_.general = full ? reinterpret_cast<const uint32_t*>(data<int>(general_)) : nullptr;
    t_.mass = over_dead(0);
    t_.sums = {data<float>(sums_), data<float>(sums_) + x.n, data<float>(sums_) + 2 * int64_t{x.n}};
    t_.input = x.input().data, t_.input_stride = x.input().stride;
    t_.d = x.d, t_.terms = terms_, t_.blocks = blocks_, t_.padded = x.padded();
  }

  Tensor run() {
    list();
    Tensor input_sum = x_.scratch({wanted_.input ? x_.n : 0, x_.d}, ScalarType::Float);
    const bool wide = wanted_.weight && grads_.weight.scalar_type() == ScalarType::Float;
    Tensor weight_sum = wide ? grads_.weight : x_.scratch({wanted_.weight ? x_.v : 0, x_.d}, ScalarType::Float);
    LiveProducts products(
        x_, coefs_, full_, wanted_, t_.lists, data<int>(first_list_), t_.sums, column_totals(), grads_.input);
    products.visit_dense(input_sum, weight_sum);
    products.visit_lists(input_sum, weight_sum);
    fill(input_sum, weight_sum);
    Tensor live = x_.zeros({4, blocks_}, ScalarType::Float);
    x_.run(report({t_, over_dead(1), x_.v, data<float>(live)}, x_.device.stream));
    return live;
  }

 private:
  // Of the mass, its square, and of mass times bias: over each block's dead columns; the last also of the dense term.
  double* over_dead(int k) const { return data<double>(over_dead_) + int64_t{k} * (blocks_ + 1); }

  void list() {
    auto* marks = reinterpret_cast<uint32_t*>(data<int>(picked_));
    const int chunks = ceil_div(x_.v, kChunk);
    Tensor counts = x_.scratch({lists_, chunks}, ScalarType::Int);
    Tensor sums = x_.scratch({3, blocks_, chunks}, ScalarType::Double);
    if (full_)
      x_.run(find_general({coefs_, x_.head, reinterpret_cast<uint32_t*>(data<int>(general_))}, x_.device.stream));
    x_.run(mark_picks({x_.index, x_.head, marks}, x_.device.stream));
    const LiveListParams lists{
        .picked = marks,
        .sketch = t_.sketch,
        .head = x_.head,
        .tau = t_.tau,
        .general = t_.general,
        .counts = data<int>(counts),
        .sums = data<double>(sums),
        .lists = t_.lists,
        .mass = over_dead(0),
        .square = over_dead(1),
        .bias = over_dead(2)};
    x_.run(list_live(lists, x_.device.stream));
    x_.run(find_first_lists(lists, data<int>(first_list_), x_.device.stream));
  }

  bool distance() const { return x_.head.distance != Distance::none; }
  float* column_totals() const {  // d bias, or what a distance needs of the same sums; null: not wanted
    if (wanted_.bias) return data<float>(grads_.bias);
    return of_columns_.numel() ? data<float>(of_columns_) : nullptr;
  }

  // The rank-one terms onto it, each gradient rounded once.
  void fill(const Tensor& input_sum, const Tensor& weight_sum) {
    Tensor rows = x_.scratch({2, x_.n}, ScalarType::Float), units = x_.scratch({3}, ScalarType::Float);
    Tensor c = x_.scratch({terms_, x_.d}, ScalarType::Float), dense = x_.scratch({blocks_, x_.d}, ScalarType::Float);
    Tensor totals = x_.scratch({terms_ + blocks_}, ScalarType::Double);
    Tensor rounded = x_.scratch({x_.planes(), terms_, x_.padded()}, x_.product_type());
    t_.missing = data<float>(rows), t_.dense = data<float>(rows) + x_.n;
    t_.c = data<float>(c), t_.dense_parts = data<float>(dense), t_.totals = data<double>(totals);
    t_.units = data<float>(units), t_.rounded = rounded.data_ptr();
    x_.run(find_terms(t_, x_.type, x_.device.stream));

    const int64_t fit = kWorkspaceBytes / (2 * int64_t{x_.planes()} * std::max(terms_, 1)) / kSpan * kSpan;
    const int most = static_cast<int>(std::clamp<int64_t>(fit, kSpan, x_.most_columns(kSpan)));
    const int stride = std::min(most, round_up(x_.v, 8));
    Tensor q = x_.scratch({x_.planes(), terms_, stride}, x_.product_type());
    const int64_t q_plane = int64_t{terms_} * stride;
    const Slices slices(x_, terms_, x_.d, std::min(most, x_.v));
    for (int first = 0; first < x_.v; first += most) {
      const int count = std::min(most, x_.v - first);
      if (terms_ > 0)
        x_.run(find_q({t_, first, count, q.data_ptr(), stride, column_totals()}, x_.type, x_.device.stream));
      if (terms_ > 0 && (wanted_.input || wanted_.scale)) {
        const Matrix weight = x_.weight(first, count);
        x_.run(x_.path.store(
            {.product =
                 {.a = {q.data_ptr(), terms_, stride, q_plane},
                  .b = {weight.data, x_.d, weight.stride, weight.plane},
                  .depth = count,
                  .span = kSpan,
                  .slices = slices.count},
             .out = data<float>(mixed_),
             .wide = true,
             .sum = data<float>(mixed_),
             .rows = terms_,
             .columns = x_.d,
             .first = first == 0,
             .last = false,
             .slices = slices.sums()},
            x_.type, Along::depth, Along::rows, x_.device.stream));
      }
      if (wanted_.weight) {
        const int64_t place = int64_t{first} * x_.d;
        x_.run(x_.path.store(
            {.product =
                 {{q.data_ptr(), count, stride, q_plane},
                  {rounded.data_ptr(), x_.d, x_.padded(), int64_t{terms_} * x_.padded()},
                  terms_,
                  kSpan},
             .out = static_cast<char*>(grads_.weight.data_ptr()) + place * bytes_of(grads_.weight.scalar_type()),
             .wide = grads_.weight.scalar_type() == ScalarType::Float,
             .sum = data<float>(weight_sum) + place,
             .unit = terms_ > 0 ? data<float>(units) + 2 : nullptr,
             .rows = count,
             .columns = x_.d,
             .first = false,
             .last = !distance(),
             .number = kNoList,
             .first_of = data<int>(first_list_) + first},
            x_.type, Along::rows, Along::rows, x_.device.stream));
        if (distance())
          x_.run(take_off_own(
              {.distance = x_.head.distance,
               .sum = data<float>(weight_sum) + place,
               .of = data<float>(of_columns_) + first,
               .points = x_.weight(first, count),
               .rows = count,
               .columns = x_.d,
               .out = static_cast<char*>(grads_.weight.data_ptr()) + place * bytes_of(grads_.weight.scalar_type()),
               .wide = grads_.weight.scalar_type() == ScalarType::Float},
              x_.type, x_.device.stream));
      }
    }
    if (x_.head.bias && full_) x_.run(sum_dense_bias(x_.head, over_dead(2) + blocks_, x_.device.stream));
    Tensor whole = grads_.input;
    if (wanted_.input && x_.head.ids) torch::stable::zero_(whole);
    if (wanted_.input || wanted_.scale)
      x_.run(
          head::finish(
              {.t = t_,
               .sum = wanted_.input ? data<float>(input_sum) : nullptr,
               .mixed = data<float>(mixed_),
               .bias = x_.head.bias ? over_dead(2) : nullptr,
               .grad_input = grads_.input.data_ptr(),
               .grad_scale = wanted_.scale ? data<float>(grads_.scale) : nullptr},
              x_.type, x_.device.stream));
    if (distance() && wanted_.input)
      x_.run(take_off_own(
          {.distance = x_.head.distance,
           .sum = data<float>(input_sum),
           .of = t_.sums.by_scale,
           .points = x_.input(),
           .rows = x_.n,
           .columns = x_.d,
           .count = x_.head.rows_there,
           .ids = x_.head.ids,
           .out = grads_.input.data_ptr()},
          x_.type, x_.device.stream));
  }

  Operands& x_;
  const Coefs coefs_;
  const bool full_;
  const Wanted wanted_;
  const Gradients& grads_;
  const int blocks_, lists_, terms_;
  Tensor picked_, general_, ids_, count_, first_list_, over_dead_, sums_, of_columns_, mixed_;
  TermParams t_{};
};

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> run(
    Operands& x, const float* stats, const float* row_coef, const float* pick_coef, bool full, const Tensor& sketch,
    double tau, bool fill, const Wanted& wanted, bool weight_grad_fp32) {
  const int64_t blocks = ceil_div<int64_t>(x.n, kSketchRows);
  check_tensor(x.op, "sketch", sketch, {blocks, x.v}, ScalarType::BFloat16);
  check(sketch.is_contiguous(), x.op, ": sketch must be contiguous");
  check_device(x.op, "sketch", sketch, x.like);
  const ScalarType dtype = x.like.scalar_type();
  const Gradients grads = gradient_tensors(x, wanted, dtype, weight_grad_fp32 ? ScalarType::Float : dtype);
  if (x.n == 0 || x.v == 0 || !wanted.any())
    return {grads.input, grads.weight, grads.bias, grads.scale, x.zeros({4, blocks}, ScalarType::Float)};
  x.lay_out_input();
  const Coefs coefs{stats, full ? stats + 3 * int64_t{x.n} : nullptr, row_coef, pick_coef, x.n};
  LiveBackward backward(
      x, coefs, stats, full, static_cast<const uint16_t*>(sketch.data_ptr()), static_cast<float>(tau), fill, wanted,
      grads);
  Tensor live = backward.run();
  return {grads.input, grads.weight, grads.bias, grads.scale, live};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> linear_live_backward(
    const Tensor& input, const Tensor& linear_weight, const std::optional<Tensor>& linear_bias,
    const std::optional<Tensor>& scale, const std::optional<Tensor>& index, const std::optional<Tensor>& aux,
    const std::optional<Tensor>& active, double softcap, double margin, const Tensor& stats, const Tensor& sketch,
    const Tensor& row_coef, const std::optional<Tensor>& index_coef, double tau, bool fill,
    std::vector<bool> needs_grad, bool weight_grad_fp32) {
  const char* op = "linear_live_backward";
  check(tau > 0 && tau < 1, op, ": tau must be in (0, 1), got ", tau);
  const Wanted wanted(op, needs_grad);
  Operands x({op, input, linear_weight, linear_bias, scale, index, aux, active, softcap, margin});
  const bool full = row_coef.dim() == 2 && row_coef.size(0) == 6;
  check(softcap == 0 || !full, op, ": with softcap only lse, logits and logp have live gradients");
  const auto stats_of = coefficients(x, "stats", stats, {full ? 12 : 3, x.n});
  const auto coef_of = coefficients(x, "row_coef", row_coef, {full ? 6 : 1, x.n});
  const auto pick_of = coefficients(x, "index_coef", index_coef, {x.n, x.k});
  return run(x, stats_of.data, coef_of.data, pick_of.data, full, sketch, tau, fill, wanted, weight_grad_fp32);
}

std::tuple<Tensor, Tensor, Tensor> harmonic_live_backward(
    const Tensor& input, const Tensor& linear_weight, const Tensor& rows, const Tensor& columns, const Tensor& index,
    const std::optional<Tensor>& active, std::string kind, double power, const Tensor& stats, const Tensor& sketch,
    const Tensor& row_coef, const Tensor& index_coef, double tau, bool fill, std::vector<bool> needs_grad,
    bool weight_grad_fp32) {
  const char* op = "harmonic_live_backward";
  check(tau > 0 && tau < 1, op, ": tau must be in (0, 1), got ", tau);
  const Wanted wanted(op, of_points(op, needs_grad));
  const std::optional<Tensor> pick_coef(index_coef);
  const PointArgs points(op, input, linear_weight, rows, columns, index, active, kind, power);
  Operands x(points.head);
  const auto stats_of = coefficients(x, "stats", stats, {4, x.n});
  const auto coef_of = coefficients(x, "row_coef", row_coef, {1, x.n});
  const auto pick_of = coefficients(x, "index_coef", pick_coef, {x.n, x.k});
  const Tensor coefs = with_dense(x, row_coef);
  const auto [grad_input, grad_weight, grad_bias, grad_scale, live] =
      run(x, stats_of.data, data<float>(coefs), pick_of.data, false, sketch, tau, fill, wanted, weight_grad_fp32);
  return {grad_input, grad_weight, live};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lossk, LOSSK_DISPATCH, m) {
  m.impl("linear_live_backward", TORCH_BOX(&linear_live_backward));
  m.impl("harmonic_live_backward", TORCH_BOX(&harmonic_live_backward));
}

}  // namespace lossk::head
