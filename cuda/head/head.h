// A vocabulary head as its kernels see it: which rows there are, and what makes logits of a product's sums.
#pragma once
#include <climits>

#include "device/platform.h"

namespace lossk::head {

constexpr int kNoColumn = INT_MAX;

// The columns that each row picks, in ascending order.
struct Picks {
  const int* column;  // [N, K]; kNoColumn, last, where an entry is none or outside the vocabulary
  const int* entry;   // [N, K], where in the caller's index each stands
  int count;          // K
};

// z = softcap(scale (raw + bias)), softcap(x) = cap tanh(x / cap); then margin off the row's first entry.
struct Head {
  int rows;                         // of the product, N or more than there are
  int columns;                      // of the product, V or a part of it
  int first;                        // the part's first column
  const int* count;                 // on the device: how many rows there are; null: all
  const int* ids;                   // [N] which of the caller's rows each is; null: itself
  const float *bias, *scale, *aux;  // [V], [N], [V]; null: 0, 1, 1
  float softcap, margin;            // 0: none
  Picks picks;

  bool plain() const { return !bias && !scale && softcap == 0 && margin == 0; }
};

}  // namespace lossk::head
