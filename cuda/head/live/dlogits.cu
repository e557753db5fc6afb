#include "head/gradient/gradient.h"
#include "head/product/launch_mma.h"

namespace lossk::head {

cudaError_t live_dlogits(const DlogitsParams& p, Element type, bool full, cudaStream_t stream) {
  return live_dlogits_by<MmaSync>(p, type, full, stream);
}

}  // namespace lossk::head
