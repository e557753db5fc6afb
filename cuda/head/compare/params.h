// Logits compared with a second head's, or with numbers of their row (cpp/head/compare.h has the formulas): what the
// ops of cpp/ops.cpp linear_divergence and linear_pairwise do with the sums that a product left in memory.
//
// A part of the vocabulary times a band of rows at a time. A row's sums are those of segments (stats/params.h), in
// their order, so they depend neither on the parts nor on other rows.
#pragma once
#include "head/compare.h"
#include "head/gradient/params.h"
#include "head/stats/params.h"

namespace lossk::head {

struct Side {
  Head head;         // of a part and a band
  const float* raw;  // [the head's rows, stride], the product's sums, before bias, scale and softcap
  const float* lse;  // [2, N], the second row what rounding left off the first; not looked at by kinds without
};

struct Compared {
  Side z, u;
  int64_t stride;  // a multiple of 4, and of the part's columns at least
  Compare kind;
  float beta;
  const float* offset;  // [2, N]: u and c of each row; of kinds of two heads not looked at
  const int64_t* skip;  // [N], a column that is left out; null: none
  int n;                // N
};

struct OnePassPartial {  // of some of a row's logits: OnePass in sums.cuh
  float max_a, sum_a, max_b, sum_b, cross;
};
struct TwoSums {  // of terms' z and u, or of an entry's value and dz
  float a, b;
};

struct CompareSumsParams {
  Compared of;
  void* partial;  // [segments, N], by the product's rows, of OnePassPartial or of TwoSums; scratch
  int segment;    // columns; the part begins where one does
};

struct CompareMergeParams {
  Compare kind;
  const void* partial;
  int segments;
  Head head;                   // of the whole vocabulary
  const float *lse_z, *lse_u;  // [2, N] where in two passes; else null
  float* lse;                  // [4, N], of z and of u; null: not wanted. Rows that are not there keep what they have
  float* sums;                 // [2, N] A B, or the sums of the values and of dz
  int n;                       // N
};

// Where the gradient by one side's logits goes.
struct SideDlogits {
  void* out;          // [planes, N, stride] at the part's first column; null: not wanted
  const float* unit;  // [N], see UnitParams; null: 1
  float* row_sums;    // [spans of kCompareSpan, N]: sum over columns of d loss / d scale; null: not wanted
  device::Element type;
};
constexpr int kCompareSpan = 512;

// Columns up to the next 8 and rows up to the next 64 that are not there become zeros. A band's first row is a multiple
// of 64.
struct CompareDlogitsParams {
  Compared of;
  const float* sums;  // [2, N], as CompareMergeParams leaves them; of kinds of one head not looked at
  const float* coef;  // [N]
  SideDlogits z, u;
  int64_t stride;  // of what is written, a multiple of 8
};

struct CompareBoundsParams {  // bound[N], by the caller's rows, as UnitParams wants it
  Compare kind;
  float beta;
  bool by_u;
  const float *sums, *offset, *coef;  // sums of kinds of two heads, offset of the others
  int n;
  float* bound;
};

// cudaErrorInvalidValue where a condition does not hold.
[[nodiscard]] cudaError_t compare_sums(const CompareSumsParams& p, cudaStream_t stream);
[[nodiscard]] cudaError_t merge_compared(const CompareMergeParams& p, cudaStream_t stream);
[[nodiscard]] cudaError_t compare_dlogits(const CompareDlogitsParams& p, cudaStream_t stream);
[[nodiscard]] cudaError_t compare_bounds(const CompareBoundsParams& p, cudaStream_t stream);

}  // namespace lossk::head
