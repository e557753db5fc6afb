// The one general backward of a head (cpp/ops.cpp, linear_stats_backward), by recomputation.
//
// A part of the vocabulary at a time: dlogits [N, part], rounded to what the products take, then d weight's rows of the
// part = dlogits^T input and d input += dlogits linear_weight's rows of the part. Each element of a gradient is summed
// by one block in one order and rounded once.
#pragma once
#include "head/head.h"
#include "head/product/matrix.h"

namespace lossk::head {

struct Coefs {                  // all by the caller's rows
  const float *lse, *lse_excl;  // [2, N], the second row what rounding left off the first; null: no aX
  const float* row;             // a0, or a0 a1 a2 a3 aX b: [1 or 6, N]; of a distance a b: [2, N]
  const float* pick;            // [N, K] or null: 0
  int n;                        // N
};

struct DlogitsParams {
  Product product;  // as StatsParams has it, for a part of the vocabulary
  Head head;
  Coefs coefs;
  const float* unit;  // [N] see UnitParams; null: 1
  void* out;          // [planes, N, stride], columns beyond the part's zero
  int stride;         // a multiple of 8
  float* row_sums;    // [parts, N]: sum over columns of d loss / d scale, of a distance of dlogits; null: not wanted
  // Of live columns: no dense term, and row_sums is [3, live_parts, N], the two others the sums of d loss / d (scale
  // raw) without the picks, and of its square with them. The first is 0 where the head is plain and no `scale` wanted.
  int live_parts = 0;
  bool scale = false;
};

// out[ids[i]] = (sum + a b^T) / unit, in T or in float32.
struct StoreParams {
  Product product;
  void* out;
  bool wide;          // float32, where T is narrower
  float* sum;         // [rows, columns] of the products before, / unit; not looked at where first and last
  const int* ids;     // null: itself
  Count count;        // of rows
  const float* unit;  // null: 1
  bool unit_by_row;   // [rows], not one for all
  int rows, columns;
  bool first, last;         // of the products that are summed: nothing is there yet; round the sum
  bool sum_by_ids = false;  // sum has its rows where out has
  // Which of the products that add to a sum this is, and which is the first to have each row [rows of out]: that one
  // and those before it do not read it. null: all read, where not `first`.
  int number = 0;
  const int* first_of = nullptr;
  // [product.slices, rows, columns] of what each slice made: scratch, not looked at where there is one.
  float* slices = nullptr;
};

// What float16 wants: a row's dlogits are multiplied by a unit of their own before they are rounded, after which
// float16 holds them all, the row's weight, 1 / N in a mean, is not rounded with them, and d input of a row does not
// depend on other rows. For d weight, which adds rows up, input is multiplied by what the units differ by.
struct UnitParams {
  Head head;
  Coefs coefs;
  bool full;
  float* unit;                   // [N + 1], by the product's rows; the last is d weight's
  float* times;                  // [N], d weight's unit over the row's: at most 1
  const float* bound = nullptr;  // [N] of a row's |dlogit|, but for scale, by the caller's rows; null: of the coefs
};

// to[ids[j]] += sum_i from[i][j] / unit[i], over the planes of dlogits.
struct ColumnSumParams {
  const void* from;
  int rows, stride, columns;
  Count count;  // of rows
  const float* unit;
  float* to;
  const int* ids = nullptr;  // null: itself
  Count columns_there = {};
};

struct RowSumParams {  // to[ids[i]] += sum over parts / unit[i]
  const float* from;   // [parts, n]
  int parts, n;
  const int* ids;
  Count count;
  const float* unit;
  float* to;
};

// What a path (head/paths.h) does. cudaErrorInvalidValue where a condition does not hold.
[[nodiscard]] cudaError_t dlogits(const DlogitsParams& p, device::Element type, bool full, cudaStream_t stream);
[[nodiscard]] cudaError_t dlogits_sm90(const DlogitsParams& p, device::Element type, bool full, cudaStream_t stream);
[[nodiscard]] cudaError_t live_dlogits(const DlogitsParams& p, device::Element type, bool full, cudaStream_t stream);
[[nodiscard]] cudaError_t live_dlogits_sm90(
    const DlogitsParams& p, device::Element type, bool full, cudaStream_t stream);
// Both operands along rows, as d weight has them; a along depth and b along rows, as d input; both along depth, as
// logits, whose row has an even number of columns, those beyond b's rows zeros.
[[nodiscard]] cudaError_t store(const StoreParams& p, device::Element type, Along a, Along b, cudaStream_t stream);
[[nodiscard]] cudaError_t join_slices(const StoreParams& p, device::Element type, cudaStream_t stream);
[[nodiscard]] cudaError_t store_sm90(const StoreParams& p, device::Element type, Along a, Along b, cudaStream_t stream);

[[nodiscard]] cudaError_t find_units(const UnitParams& p, cudaStream_t stream);
[[nodiscard]] cudaError_t column_sums(const ColumnSumParams& p, device::Element type, cudaStream_t stream);
[[nodiscard]] cudaError_t add_row_sums(const RowSumParams& p, cudaStream_t stream);

}  // namespace lossk::head
