#include "head/columns.h"

namespace lossk::head {

GatheredColumns::GatheredColumns(Operands& x, int longest, int most, bool picks)
    : x_(x),
      most_(most),
      bias_(x.scratch({x.head.bias ? longest : 0}, ScalarType::Float)),
      aux_(x.scratch({x.head.aux ? longest : 0}, ScalarType::Float)),
      column_(x.scratch({picks ? x.n : 0, x.k}, ScalarType::Int)),
      entry_(x.scratch({picks ? x.n : 0, x.k}, ScalarType::Int)),
      head_(x.head) {
  if (head_.bias) head_.bias = data<float>(bias_);
  if (head_.aux) head_.aux = data<float>(aux_);
  head_.picks.count = picks ? x.head.picks.count : 0;
  if (picks) head_.picks.column = data<int>(column_), head_.picks.entry = data<int>(entry_);
}

void GatheredColumns::open(const int* ids, const int* count, int first_row, int rows, Count there) {
  ids_ = ids, count_ = count;
  head_.rows = rows, head_.first_row = first_row, head_.rows_there = there;
  const int longest = static_cast<int>(std::max(bias_.size(0), aux_.size(0)));
  if (longest > 0)
    x_.run(gather_columns(
        {.ids = ids,
         .count = {count},
         .most = longest,
         .bias = x_.head.bias,
         .aux = x_.head.aux,
         .to_bias = data<float>(bias_),
         .to_aux = data<float>(aux_)},
        x_.device.stream));
  if (head_.picks.count == 0) return;
  Head with_picks = head_;
  with_picks.picks = x_.head.picks;
  x_.run(map_picks({with_picks, ids, count, data<int>(column_), data<int>(entry_)}, x_.device.stream));
}

Head GatheredColumns::part(int first) const {
  Head head = head_;
  head.first = first, head.columns = most_, head.columns_there = {count_, first};
  return head;
}

}  // namespace lossk::head
