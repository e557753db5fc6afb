// Harmonic logits of elementwise distances: what the ops of cpp/ops.cpp elementwise_stats and elementwise_backward do
// on a GPU, by subtractions, without a product.
//
// A band of rows times a part of the vocabulary at a time. Every sum is one of short chains whose bounds depend on
// features, columns and rows alone, added up in order, so a row's results depend neither on the parts nor on other
// rows.
#pragma once
#include "head/element_distance.h"
#include "head/head.h"

namespace lossk::head {

struct Points {
  const void* data;  // contiguous along features
  int64_t stride;    // elements
};

// Whose distances: the rows and columns of a band and a part.
struct Pairs {
  Metric<float> metric;
  device::Element type;
  Points x, w;  // [N, d], [V, d]
  int d;
  Head head;                            // which of them
  const int64_t* target;                // [N]
  const float *row_term, *column_term;  // [N], [V] where the kind is divided; else null
  int v;                                // V, for targets outside
};

struct HarmonicPartial {  // of some of a row's columns: sum exp(z - max) without the target's; total: of z, with its 0
  float max, sum, total;
};

struct HarmonicSumsParams {
  Pairs of;                  // of the whole vocabulary
  float* at_target;          // [N] d_iy
  HarmonicPartial* partial;  // [segments, the head's rows]; null: at_target is made, nan where y is outside
  int segment;               // columns, a multiple of 64
};

struct HarmonicMergeParams {
  const HarmonicPartial* partial;
  int segments;
  Head head;
  int64_t n;     // N
  float* stats;  // [4, N]: d_iy is there; rows that are not there keep what they have
};

// What a row's pairs need of it.
struct HarmonicRow {
  float lse, low;   // low: what rounding left off lse
  float a, b;       // dL/dz = a p + b
  float at_target;  // d_iy^2 + eps
  float target;     // dL/dd of the target's column
  float negligible;
};

struct HarmonicRowsParams {
  Metric<float> metric;
  Head head;
  int v;
  int64_t n;
  const float *stats, *row_coef;  // [4, N], [2, N]
  HarmonicRow* rows;              // [the head's rows]
};

// Two numbers of each pair, of which slopes make dL/dd dd/dx. Where the kind is divided, e is dL/d column_term.
struct PairCoefsParams {
  Pairs of;
  const HarmonicRow* rows;  // [N], by lines
  float *a, *e;             // [the head's rows, stride], zeros beyond the columns; e null: not wanted
  int64_t stride;           // a multiple of 64, and of the head's columns at least
};

struct PairSlopesParams {
  Pairs of;
  const float *a, *e;
  int64_t stride;
  bool of_rows;      // whose gradient: the rows', or the columns'
  bool first, last;  // of those that add to `sum`; the last one writes `out` instead
  float* sum;        // [N, d] by lines, or [the head's columns, d]; null where first and last
  void* out;         // [N, d], or [V, d]
  bool wide;         // out is float32 where the type is narrower
};

struct TermSumsParams {
  Head head;
  const float* e;
  int64_t stride;
  float *rows, *columns;  // [N], [V], added to; null: not wanted
};

[[nodiscard]] bool has_two_numbers(const Metric<float>& m);  // a pair, not one
// cudaErrorInvalidValue where a condition does not hold.
[[nodiscard]] cudaError_t harmonic_sums(const HarmonicSumsParams& p, cudaStream_t stream);
[[nodiscard]] cudaError_t merge_harmonic(const HarmonicMergeParams& p, cudaStream_t stream);
[[nodiscard]] cudaError_t harmonic_rows(const HarmonicRowsParams& p, cudaStream_t stream);
[[nodiscard]] cudaError_t pair_coefs(const PairCoefsParams& p, cudaStream_t stream);
[[nodiscard]] cudaError_t pair_slopes(const PairSlopesParams& p, cudaStream_t stream);
[[nodiscard]] cudaError_t term_sums(const TermSumsParams& p, cudaStream_t stream);

}  // namespace lossk::head
