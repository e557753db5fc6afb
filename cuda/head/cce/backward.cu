#include "head/cce/backward.h"
#include "head/product/launch_mma.h"

namespace lossk::head {
namespace {

struct MmaSync {
  template <class T, Along a, Along b, template <class, int> class Epilogue>
  static cudaError_t multiply(const Product& p, const typename Epilogue<T, 1>::Params& e, cudaStream_t stream) {
    return multiply_mma_sync<T, a, b, Epilogue>(p, e, stream);
  }
};

}  // namespace

cudaError_t cce_backward(const CceBackwardParams& p, Element type, cudaStream_t stream) {
  if (!valid(p, type)) return cudaErrorInvalidValue;
  return type == Element::bf16 ? cce_backward_in_chunks<MmaSync, Bf16>(p, stream)
                               : cce_backward_in_chunks<MmaSync, Fp16>(p, stream);
}

}  // namespace lossk::head
