// A vocabulary head as the kernels see it: pointers, strides and options, checked.
#pragma once
#include <vector>

#include "common/products.h"
#include "common/tensor.h"
#include "head/arguments.h"
#include "head/epilogue.h"

namespace lossk {

// Rows ids[0 .. count) of a matrix [*, columns] with any strides -> `to` [count, columns].
template <class Id>
void gather_rows(const Tensor& matrix, const Id* ids, int64_t count, void* to);

template <class T>
class Head {
 public:
  explicit Head(const HeadArgs&);  // throws on anything a kernel could trip over

  const char* op;
  ScalarType dtype;  // of input and linear_weight
  const Products<T>& products;
  const Epilogue<T>& epilogue;
  int64_t total, dim, vocab;  // N, D, V
  std::vector<int64_t> rows;  // the active ones, ascending
  int64_t picks;              // K
  double aux_sum = 0;
  int64_t segments() const { return ceil_div(vocab, kSegment); }

  Distance distance = Distance::none;

  T scale(int64_t row) const { return scale_.data ? scale_.data[row] : T(1); }  // 1 of a distance
  RowTerms<T> terms(int64_t row) const {
    if (!terms_.data) return scale(row);
    const T* of = terms_.data + row;
    return {of[0], of[total], of[2 * total], of[3 * total]};
  }
  const int64_t* index(int64_t row) const { return index_.data ? index_.data + row * picks : nullptr; }
  T column(int64_t v) const { return bias_.data[v]; }  // of a distance
  T aux(int64_t v) const { return aux_.data ? aux_.data[v] : T(1); }
  void load(int64_t segment, Segment<T>&) const;

  // Active rows begin .. begin + count of input. Where rows are ignored they are gathered into `buffer` [count, D].
  struct Rows {
    const char* data;
    int64_t row_stride, column_stride;
  };
  Rows gather(int64_t begin, int64_t count, char* buffer) const;
  int64_t gather_bytes(int64_t count) const { return all_active() ? 0 : count * dim * element_bytes_; }

  // Active rows begin .. begin + count of input, widened -> to [count, D]; rows of the weight.
  void widen(int64_t begin, int64_t count, T* to) const;
  void widen_weight(int64_t first, int64_t count, T* to) const;

  // A distance's gradients have a term of their own point beside the products': of euclidean and hamming the sum of g
  // times the point comes off, of cosine what lies along it. Of active rows begin .. begin + count, [count, D], and of
  // rows of the weight; room for [count, D] points is the caller's.
  void own_input(int64_t begin, int64_t count, const GradSums<T>* sums, T* grad, T* points) const;
  void own_weight(int64_t first, int64_t count, const T* sums, T* grad, T* points) const;

  // Input rows as panels over rows with depth D, for the logits; and over D with depth `rows`, for d weight.
  void pack_input(const Rows&, int64_t count, void* panels) const;
  void pack_input_t(const Rows&, int64_t count, int64_t steps, void* panels) const;
  // A segment of the weight as panels over columns with depth D, for the logits; and over D in [d0, d1), for d input.
  void pack_weight(int64_t segment, void* panels) const;
  void pack_weight_t(int64_t segment, int64_t d0, int64_t d1, void* panels) const;

 private:
  bool all_active() const { return static_cast<int64_t>(rows.size()) == total; }
  void own(const T* points, int64_t count, const T* sums, int64_t stride, T* grad) const;

  Tensor input_, weight_;
  Optional<T> bias_, scale_, aux_, terms_;  // bias: a distance's column
  Optional<int64_t> index_;
  double softcap_, margin_, power_ = 0;
  int64_t element_bytes_;
};

}  // namespace lossk
