// The sketch: what each column of the vocabulary weighs in each block of rows, left by a forward that has every logit
// in registers anyway, for a backward that then visits the heavy columns only.
#pragma once
#include <torch/headeronly/util/BFloat16.h>

#include <vector>

#include "head/head.h"

namespace lossk {

// Sum of p over each block of active rows, [blocks, V]. Made segment by segment while lse is unknown, of
// exp(z - reference); once lse is known each block's part of a segment gets the factor that makes its total right.
struct Sketch {
  static void check_vocab(const char* op, int64_t vocab) {  // lists of columns are int32
    check(vocab < int64_t(1) << 31, op, ": with tau linear_weight must have fewer than 2^31 rows, got ", vocab);
  }
  static constexpr int64_t kRows = 128;  // of one block
  c10::BFloat16* data;
  const double* reference;  // [rows of the chunk]: an estimate of lse; how far it is off must not vary much in a block
};

// The estimate, from a sixty-fourth of the vocabulary: the columns that rows pick most often hold most of the mass of
// most rows, and an even sample of the others tells the rest. (From the picks alone, or from a running lse over the
// vocabulary, the sketch of a half-trained model was a quarter off; from both, a thirtieth.)
template <class T>
std::vector<double> estimate_lse(const HeadArgs&, const Head<T>&, int64_t rows_at_once);

}  // namespace lossk
