#include "head/product/launch_mma.h"
#include "head/stats/loss.cuh"
#include "head/stats/merge.cuh"
#include "head/stats/stats.h"

namespace lossk::head {

cudaError_t stats(const StatsParams& p, Element type, bool full, cudaStream_t stream) {
  return stats_by<MmaSync>(p, type, full, stream);
}

cudaError_t merge_stats(const MergeParams& p, bool full, cudaStream_t stream) {
  if (p.head.rows == 0) return cudaSuccess;
  return launch(
      full ? merge_rows<true> : merge_rows<false>,
      {ceil_div(p.head.rows, kMergeRows), kMergeThreads, sizeof(MergeShared<RowState<double, int>>), stream}, p);
}

cudaError_t sum_loss(const LossParams& p, cudaStream_t stream) {
  return launch(loss_of_rows, {1, kLossThreads, sizeof(SumShared<kLossThreads>), stream}, p);
}

cudaError_t sum_aux(const AuxParams& p, cudaStream_t stream) {
  return launch(sum_of_aux, {1, kAuxThreads, sizeof(SumShared<kAuxThreads>), stream}, p);
}

}  // namespace lossk::head
