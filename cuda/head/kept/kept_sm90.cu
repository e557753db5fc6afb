#include "head/kept/keep.cuh"
#include "head/product/launch_wgmma.h"

namespace lossk::head {

cudaError_t keep_logits_sm90(const StatsParams& p, Element type, bool full, cudaStream_t stream) {
  return keep_by<Wgmma>(p, type, full, stream);
}

}  // namespace lossk::head
