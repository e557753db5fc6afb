#include "head/live_products.h"

namespace lossk::head {

using device::Element;

// Of weight gathered at a time: a list of a tenth of a large vocabulary in one piece. Before that, where d weight is
// frozen and has no room, of dlogits of the rows that have the whole vocabulary.
#ifndef LOSSK_GATHERED_BYTES  // tests want several parts of few columns
#define LOSSK_GATHERED_BYTES (int64_t{256} << 20)
#endif
constexpr int64_t kGatheredBytes = LOSSK_GATHERED_BYTES;

LiveProducts::LiveProducts(
    Operands& x, const Coefs& coefs, bool full, const Wanted& wanted, const Lists& lists, const int* first_list,
    const LiveSums& sums, float* column_totals, const Tensor& grad_input)
    : x_(x),
      coefs_(coefs),
      full_(full),
      by_units_(x.type == Element::fp16),
      wanted_(wanted),
      lists_(lists),
      first_list_(first_list),
      sums_(sums),
      column_totals_(column_totals),
      grad_input_(grad_input),
      count_(ceil_div(x.n, kListRows)),
      left_(x.scratch({2, count_}, ScalarType::Int)),
      dense_(x.scratch({2 * int64_t{x.n} + 2}, ScalarType::Int)) {}

LiveProducts::Units LiveProducts::units_of(const Head& head) const {
  const Units units{
      x_.scratch({by_units_ ? x_.n + 1 : 0}, ScalarType::Float), x_.scratch({by_units_ ? x_.n : 0}, ScalarType::Float)};
  if (by_units_)
    x_.run(find_units({head, coefs_, full_, data<float>(units.unit), data<float>(units.times)}, x_.device.stream));
  return units;
}

void LiveProducts::visit_dense(const Tensor& input_sum, const Tensor& weight_sum) {
  int *lines = data<int>(dense_), *ids = lines + x_.n, *count = ids + x_.n, *columns = count + 1;
  x_.run(split_dense(
      {.lists = lists_,
       .head = x_.head,
       .lines = lines,
       .ids = ids,
       .count = count,
       .columns = columns,
       .columns_left = data<int>(left_),
       .rows_left = data<int>(left_) + count_},
      x_.device.stream));
  Head head = x_.head;
  head.ids = ids, head.rows_there = {count};
  // Nobody needs d input's memory yet.
  const bool fits = wanted_.input && x_.planes() == 1 && x_.d % 8 == 0;
  const Tensor copy = fits ? grad_input_ : x_.scratch({x_.planes(), x_.n, x_.padded()}, x_.product_type());
  Rows rows{.rows = x_.n, .lines = lines, .there = head.rows_there, .input = x_.input(ids, head.rows_there, copy)};
  rows.by_columns = {rows.input.data, x_.d, rows.input.stride, rows.input.plane};
  const auto [unit, times] = units_of(head);
  if (by_units_) {
    if (wanted_.weight) rows.by_columns = x_.input_by_columns(data<float>(times), ids, head.rows_there);
    rows.unit = data<float>(unit), rows.weight_unit = rows.unit + x_.n;
  }
  // Nobody has written sums of d weight either: dlogits lie at their end, as in the exact backward.
  const Tensor* end = wanted_.weight ? &weight_sum : nullptr;
  const int most = columns_at_a_time(x_, end ? kWorkspaceBytes : kGatheredBytes);
  const Tensor workspace = x_.scratch({x_.planes(), x_.n, std::min(most, round_up(x_.v, 8))}, x_.product_type());
  const RowSums sums(x_, x_.n, std::max(most, columns_at_the_end(x_, end, 0)));
  const Slices slices(x_, wanted_.input ? x_.n : 0, x_.d, std::min(most, x_.v));
  for (int first = 0; first < x_.v; first += head.columns) {
    const Room room = room_for(x_, workspace, end, first);
    head.first = first, head.columns = room.columns, head.columns_there = {columns, first};
    const Matrix weight = x_.weight(first, room.columns, head.columns_there);
    visit(rows, {weight, head, room, nullptr, first, 0, first == 0}, sums, &slices, input_sum, weight_sum);
  }
}

void LiveProducts::visit_lists(const Tensor& input_sum, const Tensor& weight_sum) {
  const int tall = std::min(kListRows, x_.n);
  const int64_t fit = kWorkspaceBytes / (2 * int64_t{x_.planes()} * kListRows) / kSpan * kSpan;
  const int most = static_cast<int>(std::clamp<int64_t>(fit, kSpan, x_.most_copied_columns(kSpan, kGatheredBytes)));
  const auto [unit, times] = units_of(x_.head);
  const bool multiplied = by_units_ && wanted_.weight;
  const Matrix by_columns = multiplied ? x_.input_by_columns(data<float>(times)) : x_.input_by_columns();
  const Tensor out = x_.scratch({x_.planes(), tall, most}, x_.product_type());
  const Room room{out.data_ptr(), most, most};
  const RowSums sums(x_, tall, most);
  GatheredColumns columns(x_, x_.v, most, x_.head.picks.count > 0);
  for (int list = 0; list < count_; ++list) {
    const int first_row = list * kListRows, count = std::min(kListRows, x_.n - first_row);
    const int* ids = lists_.ids + int64_t{list} * x_.v;
    const Rows rows{
        .rows = count,
        .first = first_row,
        .there = {data<int>(left_) + count_ + list},
        .input = from_line(x_.input(), first_row, count),
        .by_columns = from_line(by_columns, first_row, x_.d),
        .unit = by_units_ ? data<float>(unit) + first_row : nullptr,
        .weight_unit = by_units_ ? data<float>(unit) + x_.n : nullptr};
    columns.open(ids, data<int>(left_) + list, first_row, count, rows.there);
    for (int first = 0; first < x_.v; first += most)
      visit(
          rows, {columns.weight(first), columns.part(first), room, ids + first, 0, list + 1, first == 0}, sums, nullptr,
          input_sum, weight_sum);
  }
}

void LiveProducts::visit(
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
       .to = sums_,
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
         .first_of = first_list_ + c.first},
        x_.type, Along::rows, Along::rows, x_.device.stream));
  }
  if (column_totals_)
    x_.run(column_sums(
        {.from = out,
         .rows = r.rows,
         .stride = stride,
         .columns = most,
         .count = r.there,
         .unit = r.unit,
         .to = column_totals_ + c.first,
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

}  // namespace lossk::head
