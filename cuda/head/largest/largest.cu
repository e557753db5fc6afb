#include "head/largest/largest.cuh"

#include "device/launch.h"

namespace lossk::head {
namespace {

bool valid(const LogitsRead& r) {
  return r.raw && reinterpret_cast<uintptr_t>(r.raw) % 16 == 0 && r.stride % 4 == 0 && r.stride >= r.head.columns &&
         r.partial && r.segment > 0 && r.segment % kLineColumns == 0 && r.head.first % r.segment == 0;
}

}  // namespace

cudaError_t largest(const LargestParams& p, cudaStream_t stream) {
  const Head& head = p.logits.head;
  if (head.rows == 0 || head.columns == 0) return cudaSuccess;
  if (!valid(p.logits) || p.k < 1 || p.k > kMostLargest || !p.best) return cudaErrorInvalidValue;
  return launch(largest_of_rows, {ceil_div(head.rows, kLines), kLineThreads, sizeof(LargestShared), stream}, p);
}

cudaError_t write_largest(const WriteLargestParams& p, cudaStream_t stream) {
  const int64_t blocks = ceil_div<int64_t>(int64_t{p.head.rows} * p.k, kLineThreads);
  if (blocks == 0) return cudaSuccess;
  if (blocks > INT_MAX) return cudaErrorInvalidValue;
  return launch(write_keys, {static_cast<int>(blocks), kLineThreads, 0, stream}, p);
}

cudaError_t sample(const DrawParams& p, cudaStream_t stream) {
  const Head& head = p.logits.head;
  if (head.rows == 0 || head.columns == 0) return cudaSuccess;
  const int segments = p.logits.segment > 0 ? ceil_div(head.columns, p.logits.segment) : 0;
  if (!valid(p.logits) || !p.seed || !p.sampled || segments > 65535) return cudaErrorInvalidValue;
  return launch(sample_segments, {dim3(ceil_div(head.rows, kLines), segments), kLineThreads, 0, stream}, p);
}

cudaError_t merge_sampled(const MergeSampledParams& p, cudaStream_t stream) {
  if (p.n == 0) return cudaSuccess;
  return launch(
      merge_rows_sampled, {ceil_div(p.n, kMergeRows), kMergeThreads, sizeof(MergeShared<SampledRow>), stream}, p);
}

}  // namespace lossk::head
