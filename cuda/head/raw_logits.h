// Logits that row kernels read from memory: a part of the vocabulary times a band of rows, as the product made them.
#pragma once
#include "head/compare/params.h"
#include "head/gradients.h"

namespace lossk::head {

struct Cut {
  int columns, rows;  // of a part, of a band
};

// Bands as high as `bytes` hold of the logits of some heads.
inline Cut cut_rows(const Operands& x, int columns, int heads, int64_t bytes) {
  return {columns, x.rows_that_fit(bytes, 4 * int64_t{heads} * std::min(columns, round_up(x.v, 8)))};
}

constexpr int64_t kMostPartColumns = 1 << 24;  // of a grid's y, in spans

// Parts of whole units, of all rows if they fit.
inline Cut cut_logits(const Operands& x, int unit, int most_columns, int heads, int64_t bytes = kWorkspaceBytes) {
  const int64_t fit = std::min(bytes / (4 * int64_t{heads} * std::max(x.n, 1)), kMostPartColumns) / unit * unit;
  return cut_rows(x, static_cast<int>(std::clamp<int64_t>(fit, unit, std::max(unit, most_columns))), heads, bytes);
}

class RawLogits {
 public:
  RawLogits(const Operands& x, const Cut& cut)
      : x_(x), raw_(x.scratch({std::min(x.n, cut.rows), std::min(cut.columns, round_up(x.v, 8))}, ScalarType::Float)) {}

  static int stride(int columns) { return round_up(columns, 8); }

  // Some rows with the columns of `weight`, which are the vocabulary's from `first` on. Good until the next call.
  Side make(const Matrix& weight, int first, int row, int rows, const float* lse = nullptr) const {
    Head head = x_.rows(row, rows);
    head.first = first, head.columns = weight.rows;
    x_.run(x_.path.store(
        {.product = {from_line(x_.input(), row, rows), weight, x_.d, kSpan, head.rows_there},
         .out = raw_.data_ptr(),
         .wide = true,
         .count = head.rows_there,
         .rows = rows,
         .columns = stride(weight.rows),
         .first = true,
         .last = true},
        x_.type, Along::depth, Along::depth, x_.device.stream));
    return {head, data<float>(raw_), lse};
  }

 private:
  const Operands& x_;
  const Tensor raw_;
};

}  // namespace lossk::head
