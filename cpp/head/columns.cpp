#include "head/columns.h"

#include <algorithm>

namespace lossk {
namespace {

Tensor gathered(const char* op, const Tensor& matrix, const int32_t* ids, int64_t count) {
  Tensor rows = empty(op, matrix, {count, matrix.size(1)}, matrix.scalar_type());
  gather_rows(matrix, ids, count, rows.data_ptr());
  return rows;
}

std::optional<Tensor> gathered(const char* op, const std::optional<Tensor>& x, const int32_t* ids, int64_t count) {
  if (!x.has_value()) return std::nullopt;
  return torch::stable::view(gathered(op, torch::stable::view(*x, {x->size(0), 1}), ids, count), {count});
}

std::optional<DistanceArgs> of_columns(const DistanceArgs* whole, const std::optional<Tensor>& columns) {
  if (whole == nullptr) return std::nullopt;
  return DistanceArgs{whole->kind, whole->power, whole->rows, *columns};
}

// The picks as places among ids; -1, none, where a pick is not among them.
template <class T>
std::optional<Tensor> mapped(
    const HeadArgs& args, const Head<T>& head, const int32_t* ids, int64_t count, int64_t begin, int64_t end) {
  if (!args.index.has_value()) return std::nullopt;
  Tensor index = empty(args.op, *args.index, {head.total, head.picks}, ScalarType::Long);
  std::fill_n(data<int64_t>(index), head.total * head.picks, int64_t(-1));
  for (int64_t i = begin; i < end; ++i)
    for (int64_t k = 0, row = head.rows[i]; k < head.picks; ++k) {
      const int64_t v = head.index(row)[k];
      const int32_t* at = std::lower_bound(ids, ids + count, v);
      if (at != ids + count && *at == v) data<int64_t>(index)[row * head.picks + k] = at - ids;
    }
  return index;
}

}  // namespace

template <class T>
Columns<T>::Columns(
    const HeadArgs& args, const Head<T>& whole, const int32_t* ids, int64_t count, int64_t begin, int64_t end)
    : weight_(gathered(args.op, args.linear_weight, ids, count)),
      bias_(gathered(args.op, args.linear_bias, ids, count)),
      index_(mapped(args, whole, ids, count, begin, end)),
      aux_(gathered(args.op, args.aux, ids, count)),
      columns_(gathered(args.op, args.distance ? std::optional(args.distance->columns) : std::nullopt, ids, count)),
      distance_(of_columns(args.distance, columns_)),
      head(
          {args.op, args.input, weight_, bias_, args.scale, index_, aux_, args.active, args.softcap, args.margin,
           distance_ ? &*distance_ : nullptr}) {}

template class Columns<float>;
template class Columns<double>;

}  // namespace lossk
