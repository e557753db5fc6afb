// What the head's backwards share: their coefficients checked, the tensors of their gradients, and the products that
// dlogits become.
#pragma once
#include "head/operands.h"
#include "head/product/slices.h"

namespace lossk::head {

// float32, on input's device, of this shape; keeps alive what its pointer points to.
inline Optional<float> coefficients(
    const Operands& x, const char* name, const std::optional<Tensor>& tensor, std::initializer_list<int64_t> shape) {
  if (tensor.has_value()) {
    check_tensor(x.op, name, *tensor, shape, ScalarType::Float);
    check_device(x.op, name, *tensor, x.like);
  }
  return Optional<float>(tensor);
}

// A distance's coefficients, [2, N], of row_coef [1 or 2, N]: b may be left out.
Tensor with_dense(const Operands& x, const Tensor& row_coef);

struct Gradients {  // [0] where not wanted
  Tensor input, weight, bias, scale;
};

// Zeros, but for the two that `backward` writes whole where it computes anything.
Gradients gradient_tensors(const Operands& x, const Wanted& wanted, ScalarType input_dtype, ScalarType weight_dtype);

// The logits of the first columns, as the forward has kept them.
struct Kept {
  void* logits;
  int columns;
  const float* picked;  // [N, K]
};

// By recomputation, but for what is kept, a part of the vocabulary at a time.
void backward(
    Operands& x, const Coefs& coefs, bool full, const Wanted& wanted, const Gradients& grads, const Kept& kept = {});

constexpr int kSpan = 256;  // columns that one block does in order: a multiple of every tile's

// As many columns as `bytes` hold of dlogits: few of them make short sums for d input, read and written again each
// time.
inline int columns_at_a_time(const Operands& x, int64_t bytes = kWorkspaceBytes) {
  const int64_t fit = bytes / (2 * int64_t{x.planes()} * std::max(x.n, 1)) / kSpan * kSpan;
  return static_cast<int>(std::clamp<int64_t>(fit, kSpan, x.most_columns(kSpan)));
}

// How many of the columns from `first` on have room for their dlogits at the end of `weight`, [V, D] that is written
// from its beginning on, beyond their own rows of it. null: none have.
int columns_at_the_end(const Operands& x, const Tensor* weight, int first);

// Where the dlogits of a part lie.
struct Room {
  void* dlogits;  // [planes, N, stride]
  int stride, columns;
};
// Of the part at `first`: `workspace` [planes, N, most], or the end of `weight` where there is room for more columns.
Room room_for(const Operands& x, const Tensor& workspace, const Tensor* weight, int first);

// The depth of a product into `columns` columns in slices (product/slices.h), as many as the workspace holds, and where
// they lie.
class Slices {
 public:
  Slices(const Operands& x, int rows, int columns, int depth)
      : count(
            static_cast<int>(std::clamp<int64_t>(
                kWorkspaceBytes / std::max<int64_t>(4 * int64_t{rows} * columns, 1), 1,
                slices_of(rows, columns, depth, x.planes())))),
        tensor_(x.scratch({count > 1 ? count : 0, rows, columns}, ScalarType::Float)) {}
  float* sums() const { return count > 1 ? data<float>(tensor_) : nullptr; }

  const int count;

 private:
  const Tensor tensor_;
};

// All gradients of a head from its dlogits, which the caller writes, a part of the vocabulary at a time. The head has
// rows and columns.
class FromDlogits {
 public:
  // Lays input out. `most` columns a part; `row_parts`: of what the caller sums of a row in one part, for d scale.
  FromDlogits(Operands& x, const Wanted& wanted, const Gradients& grads, int most, int row_parts);

  // float16's, which then has a unit.
  void find_units(const Coefs& coefs, bool full, const float* bound = nullptr);

  // Of the part at `first`, which then has as many columns, and ends at `end` at the latest. Where nobody calls this a
  // part has `most`.
  const Room& begin(int first, int end);

  const Room& room() const { return room_; }
  const float* unit() const { return unit_; }    // null but for float16
  float* row_sums() const { return row_sums_; }  // [row_parts, N]; null: not wanted
  bool distance() const { return x_.head.distance != Distance::none; }
  void add(int first, const Matrix& weight, int row_parts);  // weight: the part's columns

 private:
  int64_t plane() const { return int64_t{x_.n} * room_.stride; }
  void add_weight(int first, int count);
  void add_input(int first, const Matrix& weight);
  void own_weight(int first, const Matrix& weight);
  void own_input();

  Operands& x_;
  const Wanted wanted_;
  const Gradients grads_;
  const bool own_rows_, own_columns_;  // a distance's sums of dlogits, where wanted
  const Tensor out_, sum_, row_sums_tensor_, unit_tensor_, times_;
  const Tensor of_rows_, of_columns_, weight_sum_;
  const Slices input_slices_;
  const float* const unit_;
  float* const row_sums_;
  Room room_;
  Matrix input_by_columns_;
};

}  // namespace lossk::head
