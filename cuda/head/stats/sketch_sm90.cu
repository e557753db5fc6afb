#include "head/product/launch_wgmma.h"
#include "head/stats/stats.h"

namespace lossk::head {

cudaError_t sketch_sm90(const StatsParams& p, Element type, bool full, cudaStream_t stream) {
  return sketch_by<Wgmma>(p, type, full, stream);
}

}  // namespace lossk::head
