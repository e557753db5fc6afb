#include "head/stats/sketch.cuh"

#include "head/product/launch_mma.h"
#include "head/stats/stats.h"

namespace lossk::head {

cudaError_t sketch(const StatsParams& p, Element type, bool full, cudaStream_t stream) {
  return sketch_by<MmaSync>(p, type, full, stream);
}

cudaError_t estimate_lse(const EstimateParams& p, cudaStream_t stream) {
  if (p.head.rows == 0) return cudaSuccess;
  return launch(estimates_of_rows, {ceil_div(p.head.rows, kSketchThreads), kSketchThreads, 0, stream}, p);
}

cudaError_t scale_sketch(const ScaleSketchParams& p, cudaStream_t stream) {
  const int64_t blocks = int64_t{ceil_div(p.head.rows, kSketchRows)} * ceil_div(p.head.columns, p.segment);
  if (blocks == 0) return cudaSuccess;
  if (blocks > INT_MAX) return cudaErrorInvalidValue;
  constexpr int kBytes = sizeof(float) * kSketchThreads / kWarp;
  return launch(
      p.full ? scale_segments<true> : scale_segments<false>, {static_cast<int>(blocks), kSketchThreads, kBytes, stream},
      p);
}

}  // namespace lossk::head
