#include "head/gradient/gradient.h"
#include "head/product/launch_wgmma.h"

namespace lossk::head {

cudaError_t live_dlogits_sm90(const DlogitsParams& p, Element type, bool full, cudaStream_t stream) {
  return live_dlogits_by<Wgmma>(p, type, full, stream);
}

}  // namespace lossk::head
