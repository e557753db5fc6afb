// A segment of one row's logits beside what they are compared with: its sums, or the gradient.
#pragma once
#include "head/compare.h"
#include "head/epilogue.h"

namespace lossk {

template <class T>
struct Compared {
  const Segment<T>* z;
  const T* z_raw;
  T z_scale;
  const Segment<T>* u;  // the same columns of the second head; null: numbers
  const T* u_raw;
  T u_scale;
  T number, shift;  // u and c of the row
  int64_t skip;     // a column of the vocabulary that is left out; -1: none
};

template <class T>
struct Normaliser {
  T lse = 0, low = 0;  // low: what rounding left off lse
};

// Of some of a row's columns. In one pass max and sum are those of exp(z) and exp(u), and the numerator of the kind
// stands in a, relative to them: sum w_q ((u - max_u) - (z - max_z)), sum w_p ((z - max_z) - (u - max_u)), sum w_p u.
template <class T>
struct ComparedSums {
  T max_z = -INFINITY, sum_z = 0, max_u = -INFINITY, sum_u = 0, a = 0, b = 0;
};

struct CompareTotals {  // A and B of a row, as they are final, and both lse
  double lse_z = 0, lse_u = 0, a = 0, b = 0;
};

template <class T>
struct CompareCoef {
  Normaliser<T> z = {}, u = {};
  T a = 0, b = 0;  // the row's sums
  T upstream = 0;  // what its divergence is multiplied by
};

template <class T>
struct CompareRows {
  using Sums = void (*)(Compare, T beta, const Compared<T>&, ComparedSums<T>&);
  using Terms =
      void (*)(Compare, T beta, const Compared<T>&, const Normaliser<T>& z, const Normaliser<T>& u, ComparedSums<T>&);
  // d loss / d raw of z, or (by_u) of u, over the segment (zero beyond its columns) -> g; returns sum g (raw + bias).
  using Grad = T (*)(Compare, T beta, const Compared<T>&, const CompareCoef<T>&, bool by_u, T* g);

  Sums one_pass;  // of in_one_pass kinds
  Terms terms;    // a and b of the other kinds, whose two lse are known where they are of probabilities
  Grad grad;
};

template <class T>
const CompareRows<T>& compare_rows();

}  // namespace lossk
