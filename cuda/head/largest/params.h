// The largest logits of each row, and a column drawn from its softmax (cpp/ops.cpp, linear_topk and linear_sample),
// from what a product left in memory: a part of the vocabulary times a band of rows at a time.
#pragma once
#include "common/random.h"
#include "head/head.h"
#include "head/stats/params.h"

namespace lossk::head {

struct LogitsRead {
  Head head;         // of a part and a band
  const float* raw;  // [the head's rows, stride], the product's sums, before bias, scale and softcap
  int64_t stride;    // a multiple of 4, and of the part's columns at least
  int n;             // N
  Partial* partial;  // [segments, N], by the product's rows: what lse is merged from (stats/params.h); scratch
  int segment;       // columns, a multiple of 128; the part begins where one does
};

// A logit and its column, in the order in which they are wanted as unsigned numbers: nan first, then by size, of equal
// ones the smaller column. 0: none.
using Key = uint64_t;

constexpr int kMostLargest = 128;
struct LargestParams {
  LogitsRead logits;
  int k;      // 1 to kMostLargest
  Key* best;  // [N, k], by the product's rows: the largest so far, in descending order; nothing before the first part
};
struct WriteLargestParams {
  const Key* best;
  Head head;  // of the whole vocabulary
  int k;
  float* values;     // [N, k]; rows that are not there keep what they have
  int64_t* indices;  // [N, k]
};

struct Sampled {
  Key key;  // of the logit and its noise
  float z, unused;
};
struct DrawParams {
  LogitsRead logits;
  const int64_t* seed;  // [1], on the device
  Sampled* sampled;     // [segments, N], by the product's rows; scratch
};
struct MergeSampledParams {
  const Sampled* sampled;
  const Partial* partial;
  int segments, n;
  int64_t* token;  // [N]
  float* logp;     // [N]
};

// cudaErrorInvalidValue where a condition does not hold.
[[nodiscard]] cudaError_t largest(const LargestParams& p, cudaStream_t stream);
[[nodiscard]] cudaError_t write_largest(const WriteLargestParams& p, cudaStream_t stream);
[[nodiscard]] cudaError_t sample(const DrawParams& p, cudaStream_t stream);
[[nodiscard]] cudaError_t merge_sampled(const MergeSampledParams& p, cudaStream_t stream);

}  // namespace lossk::head
