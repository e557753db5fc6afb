// Live columns: a backward that visits the columns that matter, in lists, and fills what the others would have had.
//
// A block is 128 rows of the product, as the sketch has them (stats/params.h); a list holds the columns that are live
// for kListRows of them: those whose mass is tau or more in one of its blocks, or that one of its rows picks. What a
// list leaves out is filled by rank one, block by block: cpp/head/fill.h.
#pragma once
#include "head/gradient/params.h"
#include "head/stats/params.h"

namespace lossk::head {

// Longer lists are deeper products for d weight and fewer passes over its sums, and visit more columns.
#ifndef LOSSK_LIST_ROWS  // tests want several lists from few rows
#define LOSSK_LIST_ROWS 1024
#endif
constexpr int kListRows = LOSSK_LIST_ROWS, kListBlocks = kListRows / kSketchRows;

constexpr int kChunk = 2048;  // columns that one block of threads looks at

// ---- which columns -------------------------------------------------------------------------------------------------

struct Lists {
  int* ids;    // [lists, v]: each list's columns, ascending
  int* count;  // [lists]
};

// picked[list][v] = 1 where a row of the list picks v.
struct MarkParams {
  const int64_t* index;  // [N, K]
  Head head;             // of the whole vocabulary
  uint32_t* picked;      // [lists, v], zeros
};

// Of the picks of all rows as many as `most`, evenly.
struct SampleParams {
  const int64_t* index;
  Head head;
  int most;
  uint32_t* picked;  // [v], zeros
};

// Three lists: what `picked` has; of `most` columns, evenly over the vocabulary, those that it has not, every other one
// in the second list and in the third.
struct SampleListParams {
  const uint32_t* picked;
  int v, most;
  int* counts;  // [3, chunks]; scratch
  Lists lists;
};

// The rows whose list is the whole vocabulary, ascending; and what the lists have without them.
struct DenseRowsParams {
  Lists lists;
  Head head;
  int *lines, *ids;               // [N]: which of the product's rows each is, and of the caller's
  int *count, *columns;           // [1] and [1]: how many, and V, or 0 where there are none
  int *columns_left, *rows_left;  // [lists]: 0 where a list is the whole vocabulary
};

struct LiveListParams {
  const uint32_t* picked;
  const uint16_t* sketch;  // [blocks, v] bf16
  Head head;
  float tau;
  const uint32_t* general;  // where not 0, tau is 2^-12 at most; null: it is 0
  int* counts;              // [lists, chunks]; scratch
  double* sums;             // [3, blocks, chunks]; scratch
  Lists lists;
  double *mass, *square, *bias;  // [blocks]: over the dead columns, of the mass, of its square, of mass times bias
};

// 1 where a row's coefficients say that more than a0 and b is wanted.
struct GeneralParams {
  Coefs coefs;
  Head head;
  uint32_t* general;
};

// ---- a head of a list's columns ------------------------------------------------------------------------------------

struct ColumnParams {  // to[j] = from[ids[j]]
  const int* ids;
  Count count;
  int most;
  const float *bias, *aux;  // [v] or null
  float *to_bias, *to_aux;  // [most]
};

// Each row's picks as places in a list, those that are not in it last, as none.
struct MapPicksParams {
  Head head;  // rows of the list, and its own picks
  const int* ids;
  const int* count;
  int *column, *entry;  // as Picks has them
};

// ---- what is missing, and the fill ---------------------------------------------------------------------------------

// Sums over the live columns of each row, by the product's rows.
struct LiveSums {
  float *by_scale, *total, *square;  // [N]: as GradSums has them (cpp/head/epilogue.h)
};

struct AddLiveSumsParams {
  const float* from;  // [3, parts, rows], as DlogitsParams has them
  int parts, parts_of_span, span, columns;
  Count columns_there;
  int rows;
  Count count;        // of rows
  int first;          // of the rows, in the sums
  bool fresh;         // nothing is there yet
  const float* unit;  // [rows] or null
  LiveSums to;
  const int* lines = nullptr;  // where each row is in the sums; null: from `first` on
};

// The rank-one terms q_t c_t^T: one for each block, and one for the dense part of the loss, last, where there is one.
// Both factors are what the products take, times powers that float16 wants: q's `q_unit`, and c's.
struct TermParams {
  Head head;
  Coefs coefs;
  const float* stats;  // [3 or 12, N]
  bool full, fill;
  const uint32_t* picked;
  const uint16_t* sketch;
  Lists lists;
  float tau;
  const uint32_t* general;
  const double* mass;  // [blocks]
  LiveSums sums;
  const void* input;  // [planes, N, stride] as laid out for the products
  int64_t input_stride;
  int d;
  int terms, blocks;

  float *missing, *dense;  // [N]: c of each row, before the row's scale
  float* c;                // [terms, d]: sum_i s_i c_i input_i, over the block's mass
  float* dense_parts;      // [blocks, d]; scratch
  double* totals;          // [terms]: sum_i s_i c_i, likewise; and [blocks] of the dense term's; scratch
  float* units;            // [3]: of c, of the dense term's q, and that of a product of both
  void* rounded;           // [planes, terms, padded]: c as the products take it
  int padded;
};

struct QParams {  // q of columns first .. first + count
  TermParams t;
  int first, count;
  void* q;  // [planes, terms, stride]
  int stride;
  float* grad_bias;  // [v] or null: the fill's part is added
};

struct FinishParams {
  TermParams t;
  float* sum;          // [N, d]: the live part of d input; null: not wanted. Of a distance the result, unrounded
  const float* mixed;  // [terms, d]: q weight
  const double* bias;  // [blocks] and the dense term's; null: no bias
  void* grad_input;    // [N, d]
  float* grad_scale;   // [N] or null
};

struct ReportParams {
  TermParams t;
  const double* square;  // [blocks]
  int v;
  float* live;  // [4, blocks]
};

[[nodiscard]] cudaError_t mark_picks(const MarkParams& p, cudaStream_t stream);
[[nodiscard]] cudaError_t mark_sample(const SampleParams& p, cudaStream_t stream);
[[nodiscard]] cudaError_t list_sample(const SampleListParams& p, cudaStream_t stream);
[[nodiscard]] cudaError_t find_general(const GeneralParams& p, cudaStream_t stream);
[[nodiscard]] cudaError_t list_live(const LiveListParams& p, cudaStream_t stream);
[[nodiscard]] cudaError_t split_dense(const DenseRowsParams& p, cudaStream_t stream);
// first[v] = 0 where a list is the whole vocabulary, else the number, from 1 on, of the first that has v; kNoList:
// none.
constexpr int kNoList = INT_MAX;
[[nodiscard]] cudaError_t find_first_lists(const LiveListParams& p, int* first, cudaStream_t stream);
[[nodiscard]] cudaError_t gather_columns(const ColumnParams& p, cudaStream_t stream);
[[nodiscard]] cudaError_t map_picks(const MapPicksParams& p, cudaStream_t stream);
[[nodiscard]] cudaError_t add_live_sums(const AddLiveSumsParams& p, cudaStream_t stream);
// What is missing, and c of all terms, rounded.
[[nodiscard]] cudaError_t find_terms(const TermParams& p, device::Element type, cudaStream_t stream);
[[nodiscard]] cudaError_t find_q(const QParams& p, device::Element type, cudaStream_t stream);
[[nodiscard]] cudaError_t finish(const FinishParams& p, device::Element type, cudaStream_t stream);
[[nodiscard]] cudaError_t sum_dense_bias(const Head& head, double* sum, cudaStream_t stream);
[[nodiscard]] cudaError_t report(const ReportParams& p, cudaStream_t stream);

}  // namespace lossk::head
