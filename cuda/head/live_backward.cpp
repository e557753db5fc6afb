// linear_live_backward on a GPU, schema in cpp/ops.cpp.
#include "head/columns.h"
#include "head/gradients.h"
#include "head/own/params.h"

namespace lossk::head {
namespace {

using device::Element;

// Of weight gathered at a time: a list of a tenth of a large vocabulary in one piece. Or, before that, of dlogits of
// rows that have the whole vocabulary.
#ifndef LOSSK_GATHERED_BYTES  // tests want several parts of few columns
#define LOSSK_GATHERED_BYTES (int64_t{256} << 20)
#endif
constexpr int64_t kGatheredBytes = LOSSK_GATHERED_BYTES;

// The backward of one call. Rows that have the whole vocabulary first, together; then lists in order, each in parts
// that fit the workspace: their weight is gathered. A gradient's element is summed by one block at a time. How long a
// list is the device alone knows: what is launched is for all of the vocabulary, and ends at once where there is
// nothing.
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
        left_(x.scratch({2, lists_}, ScalarType::Int)),
        first_list_(x.scratch({x.v}, ScalarType::Int)),
        dense_(x.scratch({2 * int64_t{x.n} + 2}, ScalarType::Int)),
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
    visit(input_sum, weight_sum);
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

  bool by_units() const { return x_.type == Element::fp16; }
  ScalarType product_type() const { return by_units() ? ScalarType::Half : ScalarType::BFloat16; }
  bool distance() const { return x_.head.distance != Distance::none; }
  float* column_totals() const {  // d bias, or what a distance needs of the same sums; null: not wanted
    if (wanted_.bias) return data<float>(grads_.bias);
    return of_columns_.numel() ? data<float>(of_columns_) : nullptr;
  }

  // Some rows, and some of the columns that are live for them.
  struct Rows {
    int rows, first;   // how many at most; the first in the sums
    const int* lines;  // where each is in the sums; null: from `first` on
    Count there;
    Matrix input, by_columns;
    const float *unit, *weight_unit;  // float16's
  };
  struct Part {
    Matrix weight;
    Head head;  // the rows with these columns
    Room room;
    const int* ids;  // of the vocabulary; null: from `first` on
    int first;
    int number;  // of d weight's sums: the whole vocabulary's is 0, then the lists'
    bool fresh;  // the rows' first
  };
  struct RowSums {
    RowSums(const Operands& x, int rows, int columns)
        : parts(x.path.parts * ceil_div(columns, kSpan)), tensor(x.scratch({3, parts, rows}, ScalarType::Float)) {}

    const int parts;
    const Tensor tensor;
  };

  // The live part of every gradient.
  void visit(const Tensor& input_sum, const Tensor& weight_sum) {
    visit_dense(input_sum, weight_sum);
    visit_lists(input_sum, weight_sum);
  }

  // Rows whose list is the whole vocabulary, all at once and with the weight as it is: no column is copied, and d
  // weight's sums are read and written once, not once a list.
  void visit_dense(const Tensor& input_sum, const Tensor& weight_sum) {
    int *lines = data<int>(dense_), *ids = lines + x_.n, *count = ids + x_.n, *columns = count + 1;
    x_.run(split_dense(
        {.lists = t_.lists,
         .head = x_.head,
         .lines = lines,
         .ids = ids,
         .count = count,
         .columns = columns,
         .columns_left = data<int>(left_),
         .rows_left = data<int>(left_) + lists_},
        x_.device.stream));
    Head head = x_.head;
    head.ids = ids, head.rows_there = {count};
    // Nobody needs d input's memory yet.
    const bool fits = wanted_.input && x_.planes() == 1 && x_.d % 8 == 0;
    const Tensor copy = fits ? grads_.input : x_.scratch({x_.planes(), x_.n, x_.padded()}, product_type());
    Rows rows{.rows = x_.n, .lines = lines, .there = head.rows_there, .input = x_.input(ids, head.rows_there, copy)};
    rows.by_columns = {rows.input.data, x_.d, rows.input.stride, rows.input.plane};
    Tensor unit = x_.scratch({by_units() ? x_.n + 1 : 0}, ScalarType::Float);
    Tensor times = x_.scratch({by_units() ? x_.n : 0}, ScalarType::Float);
    if (by_units()) {
      x_.run(find_units({head, coefs_, full_, data<float>(unit), data<float>(times)}, x_.device.stream));
      if (wanted_.weight) rows.by_columns = x_.input_by_columns(data<float>(times), ids, head.rows_there);
      rows.unit = data<float>(unit), rows.weight_unit = rows.unit + x_.n;
    }
    // Nobody has written sums of d weight either: dlogits lie at their end, as in the exact backward.
    const Tensor* end = wanted_.weight ? &weight_sum : nullptr;
    const int most = columns_at_a_time(x_, end ? kWorkspaceBytes : kGatheredBytes);
    const Tensor workspace = x_.scratch({x_.planes(), x_.n, std::min(most, round_up(x_.v, 8))}, product_type());
    const RowSums sums(x_, x_.n, std::max(most, columns_at_the_end(x_, end, 0)));
    const Slices slices(x_, wanted_.input ? x_.n : 0, x_.d, std::min(most, x_.v));
    for (int first = 0; first < x_.v; first += head.columns) {
      const Room room = room_for(x_, workspace, end, first);
      head.first = first, head.columns = room.columns, head.columns_there = {columns, first};
      const Matrix weight = x_.weight(first, room.columns, head.columns_there);
      visit(rows, {weight, head, room, nullptr, first, 0, first == 0}, sums, &slices, input_sum, weight_sum);
    }
  }

  void visit_lists(const Tensor& input_sum, const Tensor& weight_sum) {
    const int tall = std::min(kListRows, x_.n);
    const int64_t fit = kWorkspaceBytes / (2 * int64_t{x_.planes()} * kListRows) / kSpan * kSpan;
    const int most = static_cast<int>(std::clamp<int64_t>(fit, kSpan, x_.most_copied_columns(kSpan, kGatheredBytes)));
    Tensor unit = x_.scratch({by_units() ? x_.n + 1 : 0}, ScalarType::Float);
    Tensor times = x_.scratch({by_units() ? x_.n : 0}, ScalarType::Float);
    Matrix by_columns = x_.input_by_columns();
    if (by_units()) {
      x_.run(find_units({x_.head, coefs_, full_, data<float>(unit), data<float>(times)}, x_.device.stream));
      if (wanted_.weight) by_columns = x_.input_by_columns(data<float>(times));
    }
    const Tensor out = x_.scratch({x_.planes(), tall, most}, product_type());
    const Room room{out.data_ptr(), most, most};
    const RowSums sums(x_, tall, most);
    GatheredColumns columns(x_, x_.v, most, x_.head.picks.count > 0);
    for (int list = 0; list < lists_; ++list) {
      const int first_row = list * kListRows, count = std::min(kListRows, x_.n - first_row);
      const int* ids = t_.lists.ids + int64_t{list} * x_.v;
      const Rows rows{
          .rows = count,
          .first = first_row,
          .there = {data<int>(left_) + lists_ + list},
          .input = from_line(x_.input(), first_row, count),
          .by_columns = from_line(by_columns, first_row, x_.d),
          .unit = by_units() ? data<float>(unit) + first_row : nullptr,
          .weight_unit = by_units() ? data<float>(unit) + x_.n : nullptr};
      columns.open(ids, data<int>(left_) + list, first_row, count, rows.there);
      for (int first = 0; first < x_.v; first += most)
        visit(
            rows, {columns.weight(first), columns.part(first), room, ids + first, 0, list + 1, first == 0}, sums,
            nullptr, input_sum, weight_sum);
    }
  }

  void visit(
      const Rows& r, const Part& c, const RowSums& sums, const Slices* slices, const Tensor& input_sum,
      const Tensor& weight_sum) {
    const int most = c.head.columns, stride = c.room.stride;
    const int64_t plane = int64_t{r.rows} * stride;
    const Count columns_there = c.head.columns_there;
    void* out = c.room.dlogits;
    float* row_sums = data<float>(sums.tensor);
    x_.run(x_.path.live_dlogits(
        {.product = {r.input, c.weight, x_.d, kSpan, r.there, {}, columns_there},
         .head = c.head,
         .coefs = coefs_,
         .unit = r.unit,
         .out = out,
         .stride = stride,
         .row_sums = row_sums,
         .live_parts = sums.parts,
         .scale = wanted_.scale},
        x_.type, full_, x_.device.stream));
    x_.run(add_live_sums(
        {.from = row_sums,
         .parts = sums.parts,
         .parts_of_span = x_.path.parts,
         .span = kSpan,
         .columns = most,
         .columns_there = columns_there,
         .rows = r.rows,
         .count = r.there,
         .first = r.first,
         .fresh = c.fresh,
         .unit = r.unit,
         .to = t_.sums,
         .lines = r.lines},
        x_.device.stream));
    if (wanted_.weight) {
      float* sum = data<float>(weight_sum) + int64_t{c.first} * x_.d;
      x_.run(x_.path.store(
          {.product =
               {.a = {out, most, stride, plane},
                .b = r.by_columns,
                .depth = r.rows,
                .span = kSpan,
                .rows_there = columns_there,
                .depth_there = r.there,
                .only_with_depth = true},
           .out = sum,
           .wide = true,
           .sum = sum,
           .ids = c.ids,
           .count = columns_there,
           .unit = r.weight_unit,
           .rows = most,
           .columns = x_.d,
           .first = false,
           .last = false,
           .sum_by_ids = true,
           .number = c.number,
           .first_of = data<int>(first_list_) + c.first},
          x_.type, Along::rows, Along::rows, x_.device.stream));
    }
    if (float* totals = column_totals())
      x_.run(column_sums(
          {.from = out,
           .rows = r.rows,
           .stride = stride,
           .columns = most,
           .count = r.there,
           .unit = r.unit,
           .to = totals + c.first,
           .ids = c.ids,
           .columns_there = columns_there},
          x_.type, x_.device.stream));
    if (wanted_.input)
      x_.run(x_.path.store(
          {.product =
               {.a = {out, r.rows, stride, plane},
                .b = {c.weight.data, x_.d, c.weight.stride, c.weight.plane},
                .depth = most,
                .span = kSpan,
                .rows_there = r.there,
                .depth_there = columns_there,
                .only_with_depth = c.ids && !c.fresh,
                .slices = slices ? slices->count : 1},
           .out = data<float>(input_sum),
           .wide = true,
           .sum = data<float>(input_sum) + int64_t{r.first} * x_.d,
           .ids = r.lines,
           .count = r.there,
           .unit = r.unit,
           .unit_by_row = true,
           .rows = r.rows,
           .columns = x_.d,
           .first = c.fresh,
           .last = false,
           .sum_by_ids = true,
           .slices = slices ? slices->sums() : nullptr},
          x_.type, Along::depth, Along::rows, x_.device.stream));
  }

  // The rank-one terms onto it, each gradient rounded once.
  void fill(const Tensor& input_sum, const Tensor& weight_sum) {
    Tensor rows = x_.scratch({2, x_.n}, ScalarType::Float), units = x_.scratch({3}, ScalarType::Float);
    Tensor c = x_.scratch({terms_, x_.d}, ScalarType::Float), dense = x_.scratch({blocks_, x_.d}, ScalarType::Float);
    Tensor totals = x_.scratch({terms_ + blocks_}, ScalarType::Double);
    Tensor rounded = x_.scratch({x_.planes(), terms_, x_.padded()}, product_type());
    t_.missing = data<float>(rows), t_.dense = data<float>(rows) + x_.n;
    t_.c = data<float>(c), t_.dense_parts = data<float>(dense), t_.totals = data<double>(totals);
    t_.units = data<float>(units), t_.rounded = rounded.data_ptr();
    x_.run(find_terms(t_, x_.type, x_.device.stream));

    const int64_t fit = kWorkspaceBytes / (2 * int64_t{x_.planes()} * std::max(terms_, 1)) / kSpan * kSpan;
    const int most = static_cast<int>(std::clamp<int64_t>(fit, kSpan, x_.most_columns(kSpan)));
    const int stride = std::min(most, round_up(x_.v, 8));
    Tensor q = x_.scratch({x_.planes(), terms_, stride}, product_type());
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
  Tensor picked_, general_, ids_, count_, left_, first_list_, dense_, over_dead_, sums_, of_columns_, mixed_;
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
