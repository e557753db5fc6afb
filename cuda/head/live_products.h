// The live part of every gradient of a backward over live columns.
#pragma once
#include "head/columns.h"
#include "head/gradients.h"

namespace lossk::head {

// What it adds to the sums of d weight, and leaves in those of d input, float32. A gradient's element is summed by one
// block at a time.
class LiveProducts {
 public:
  // `column_totals`: [V] of d bias, or what a distance needs of the same sums; null: not wanted. `grad_input`: memory
  // that nobody needs yet.
  LiveProducts(
      Operands& x, const Coefs& coefs, bool full, const Wanted& wanted, const Lists& lists, const int* first_list,
      const LiveSums& sums, float* column_totals, const Tensor& grad_input);

  // Rows whose list is the whole vocabulary, all at once and with the weight as it is: no column is copied, and d
  // weight's sums are read and written once, not once a list.
  void visit_dense(const Tensor& input_sum, const Tensor& weight_sum);
  // Then the lists in order, each in parts that fit the workspace: their weight is gathered.
  void visit_lists(const Tensor& input_sum, const Tensor& weight_sum);

 private:
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
  struct Units {  // float16's, of a head's rows
    Tensor unit, times;
  };
  Units units_of(const Head& head) const;
  struct RowSums {
    RowSums(const Operands& x, int rows, int columns)
        : parts(x.path.parts * ceil_div(columns, kSpan)), tensor(x.scratch({3, parts, rows}, ScalarType::Float)) {}

    const int parts;
    const Tensor tensor;
  };

  void visit(
      const Rows& r, const Part& c, const RowSums& sums, const Slices* slices, const Tensor& input_sum,
      const Tensor& weight_sum);

  Operands& x_;
  const Coefs coefs_;
  const bool full_, by_units_;
  const Wanted wanted_;
  const Lists lists_;
  const int* const first_list_;
  const LiveSums sums_;
  float* const column_totals_;
  const Tensor grad_input_;
  const int count_;
  const Tensor left_, dense_;  // as split_dense has them
};

}  // namespace lossk::head
