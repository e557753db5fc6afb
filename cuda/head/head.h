// A vocabulary head as its kernels see it: which rows there are, and what makes logits of a product's sums.
#pragma once
#include <climits>

#include "device/platform.h"
#include "head/distance.h"

namespace lossk::head {

constexpr int kNoColumn = INT_MAX;

// How many of `most` there are, which the device alone may know.
struct Count {
  const int* there = nullptr;  // on the device; null: all
  int before = 0;              // how many of those it counts come before the first of these

  LOSSK_DEVICE int of(int most) const {
    if (!there) return most;
    const int left = *there - before;
    return left < 0 ? 0 : left < most ? left : most;
  }
};

// The columns that each row picks, in ascending order.
struct Picks {
  const int* column;  // [N, K]; kNoColumn, last, where an entry is none or outside the vocabulary
  const int* entry;   // [N, K], where in the caller's index each stands
  int count;          // K
};

struct Softcap {
  float cap = 0, per = 0;  // and 1 / cap; 0: none

  Softcap() = default;
  Softcap(float cap) : cap(cap), per(cap > 0 ? 1 / cap : 0) {}
};

// z = softcap(scale (raw + bias)), softcap(x) = cap tanh(x / cap); then margin off the row's first entry. Or a
// distance's, whose column is in bias, and 0 at the row's first entry.
struct Head {
  int rows, columns;                // of the product
  int first_row, first;             // of all rows and of the vocabulary, the product's first
  Count rows_there, columns_there;  // of the product's
  const int* ids;                   // [N] which of the caller's rows each is; null: itself
  const float *bias, *scale, *aux;  // [V], [N], [V]; null: 0, 1, 1
  Softcap softcap;
  float margin;  // 0: none
  Picks picks;
  Distance distance = Distance::none;
  float power = 0;
  const float* terms = nullptr;  // [4, of]: a distance's rows, as DistanceArgs has them (cpp/head/arguments.h)
  int64_t of = 0;                // all of the caller's rows

  LOSSK_DEVICE int64_t id(int row) const { return ids ? ids[first_row + row] : first_row + row; }
  bool plain() const { return !bias && !scale && softcap.cap == 0 && margin == 0; }
  LOSSK_HOST_DEVICE bool curved() const { return softcap.cap > 0 || distance != Distance::none; }
};

}  // namespace lossk::head
