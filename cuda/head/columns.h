// Some columns of the vocabulary, which the device alone knows, as a head of their own.
#pragma once
#include "head/live/params.h"
#include "head/operands.h"

namespace lossk::head {

class GatheredColumns {
 public:
  // Room for lists of `longest` columns, of which `most` at a time are copied. `picks`: whether anybody asks for them.
  GatheredColumns(Operands& x, int longest, int most, bool picks);

  // The list ids[0 .. *count) for some rows of the product, of which `there` are.
  void open(const int* ids, const int* count, int first_row, int rows, Count there);
  // Its columns first .. first + most: the copied weight, and the head of it.
  Matrix weight(int first) { return x_.weight(ids_ + first, {count_, first}, most_); }
  Head part(int first) const;

 private:
  Operands& x_;
  const int most_;
  Tensor bias_, aux_, column_, entry_;
  const int *ids_ = nullptr, *count_ = nullptr;
  Head head_;
};

}  // namespace lossk::head
