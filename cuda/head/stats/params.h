// Row statistics of a vocabulary head's logits; what they are: cpp/ops.cpp, linear_stats.
#pragma once
#include "common/math.h"
#include "head/head.h"
#include "head/product/matrix.h"

namespace lossk::head {

// A segment of the vocabulary is what one block sums up in order; a row's segments are merged in order too. Both depend
// on the vocabulary alone, so a row's statistics do not depend on the GPU or on other rows. Many enough to give work to
// every multiprocessor at one tile of rows.
constexpr int kColumnsInSegment = 256;  // at least: a multiple of every tile's
constexpr int kMostSegments = 128;
inline int segment_of(int v) { return round_up(ceil_div(v < 1 ? 1 : v, kMostSegments), kColumnsInSegment); }

struct Partial {  // of some of a row's logits: sum exp(z - max)
  float max, sum;
};
using FullState = RowState<float, int>;  // every statistic of them
LOSSK_DEVICE FullState state_of(const Partial& of) {
  FullState s;
  s.max = of.max, s.sum = of.sum;
  return s;
}

// Sums of p over each 128 rows of the product, as made with an estimate of lse in its place, which may not be above lse
// by much: p is then lost in the others' (sketch.cuh).
struct SketchParams {
  const float* reference;  // [N], by the product's rows: the estimate
  uint16_t* sums;          // [blocks, v] bf16
  int v;                   // of the whole vocabulary
  // [parts, N] sum exp(z - max) d softcap(x) / dx, or dz / d(-h); of a distance without a sketch sum z. null: not
  // wanted
  float* slopes;
};
constexpr int kSketchRows = 128;

// Logits for a backward that does not multiply for them again, as kept/logit.cuh has them, below a reference: the
// largest logit that the row's part of a segment has met by then. What is probable lies near it, and loses little.
constexpr int kColumnsOfReference = 64;
// Of a row: so many columns, and behind them the references in float32, whole tiles' at a time.
inline int64_t kept_line(int64_t columns) {
  return round_up<int64_t>(columns, 8) + 2 * round_up<int64_t>(ceil_div<int64_t>(columns, kColumnsOfReference), 4);
}

struct KeptLogits {
  uint16_t* values = nullptr;   // [N, line] from the product's first column on
  float* references = nullptr;  // the same
  int64_t line = 0;             // in values

  KeptLogits() = default;
  // Of all the `columns` that are kept, those from `first` on, a multiple of a tile's.
  KeptLogits(void* all, int columns, int first)
      : values(static_cast<uint16_t*>(all) + first),
        references(
            reinterpret_cast<float*>(static_cast<uint16_t*>(all) + round_up(columns, 8)) + first / kColumnsOfReference),
        line(kept_line(columns)) {}

  bool valid(int columns) const {
    return line % 8 == 0 && line >= kept_line(columns) && reinterpret_cast<uintptr_t>(values) % 16 == 0;
  }
  LOSSK_DEVICE float* reference(int64_t row, int group) const { return references + row * (line / 2) + group; }
};

struct StatsParams {
  Product product;  // input linear_weight^T, its span a segment
  Head head;
  void* partial;             // [parts, N] of Partial, of FullState where every statistic is wanted; scratch
  float* picked;             // [N, K] logits; nothing is written where there is no pick
  int first_part;            // where the vocabulary comes in several products: the segments before this one
  SketchParams sketch = {};  // of sketch alone
  KeptLogits kept = {};      // of keep_logits alone
};

struct MergeParams {
  const void* partial;  // [parts, N]
  int parts;
  Head head;                      // of the whole vocabulary
  const int64_t* index;           // [N, K]
  const double* aux_sum;          // [1]
  float* stats;                   // [12, N] or [3, N]; rows that are not there keep what they have, here and below
  float *picked, *logp;           // [N, K]
  int64_t* argmax;                // [N]
  const float* slopes = nullptr;  // as SketchParams has them
  bool sums_z = false;            // they are those of z, for the stats' fourth row
};

// Each block's part of a segment gets the factor that makes its total right.
struct ScaleSketchParams {
  const void* partial;  // as StatsParams leaves them
  bool full;
  int parts, parts_of_segment, segment;
  Head head;           // of the whole vocabulary
  const float* stats;  // as MergeParams leaves them
  uint16_t* sums;
};

// The logits of some columns say what lse is: of those that rows pick often exactly, of two samples of the others from
// the lower of the two, for a sample with a heavy column in it says too much of the rest.
struct EstimateParams {
  const Partial* partial;  // [3, parts, N]: picked often, and the two samples
  int parts, parts_of_segment, segment;
  const int* counts;  // [3] of columns
  Head head;          // of the whole vocabulary
  float* reference;   // [N], by the product's rows
};

struct AuxParams {
  const float* aux;  // [v]; null: ones
  int v;
  double* sum;
};

struct LossParams {
  const float* stats;                      // as MergeParams leaves them, every one where `full`
  const float *picked, *coef, *pick_coef;  // [N, K]; loss_coef [3, N], or without its c [2, N]; index_coef [N, K]
  const int64_t* index;
  const double* aux_sum;
  Head head;
  bool full;
  float* loss;      // [1]
  float* row_coef;  // [6, N] or [1, N]: what depends on lse; the rest is zero already
};

// What a path (head/paths.h) does: `full` for every statistic. cudaErrorInvalidValue where a condition does not hold.
[[nodiscard]] cudaError_t stats(const StatsParams& p, device::Element type, bool full, cudaStream_t stream);
[[nodiscard]] cudaError_t stats_sm90(const StatsParams& p, device::Element type, bool full, cudaStream_t stream);
// The same, and a sketch; and the logits, for bf16 and fp16 and without softcap.
[[nodiscard]] cudaError_t sketch(const StatsParams& p, device::Element type, bool full, cudaStream_t stream);
[[nodiscard]] cudaError_t keep_logits(const StatsParams& p, device::Element type, bool full, cudaStream_t stream);
[[nodiscard]] cudaError_t keep_logits_sm90(const StatsParams& p, device::Element type, bool full, cudaStream_t stream);
[[nodiscard]] cudaError_t sketch_sm90(const StatsParams& p, device::Element type, bool full, cudaStream_t stream);

[[nodiscard]] cudaError_t merge_stats(const MergeParams& p, bool full, cudaStream_t stream);
[[nodiscard]] cudaError_t scale_sketch(const ScaleSketchParams& p, cudaStream_t stream);
[[nodiscard]] cudaError_t estimate_lse(const EstimateParams& p, cudaStream_t stream);
[[nodiscard]] cudaError_t sum_loss(const LossParams& p, cudaStream_t stream);
[[nodiscard]] cudaError_t sum_aux(const AuxParams& p, cudaStream_t stream);

}  // namespace lossk::head
