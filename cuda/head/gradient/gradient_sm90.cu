#include "head/gradient/gradient.h"
#include "head/product/launch_wgmma.h"

namespace lossk::head {

cudaError_t dlogits_sm90(const DlogitsParams& p, Element type, bool full, cudaStream_t stream) {
  return dlogits_by<Wgmma>(p, type, full, stream);
}

cudaError_t store_sm90(const StoreParams& p, Element type, Along a, Along b, cudaStream_t stream) {
  return store_by<Wgmma>(p, type, a, b, stream);
}

}  // namespace lossk::head
