#include "head/cce/backward.h"
#include "head/product/launch_wgmma.h"

namespace lossk::head {
namespace {

struct WgmmaPath {
  template <class T, Along a, Along b, template <class, int> class Epilogue>
  static cudaError_t multiply(const Product& p, const typename Epilogue<T, 1>::Params& e, cudaStream_t stream) {
    return multiply_wgmma<T, a, b, Epilogue>(p, e, stream);
  }
};

}  // namespace

cudaError_t cce_backward_sm90(const CceBackwardParams& p, Element type, cudaStream_t stream) {
  if (!valid(p, type)) return cudaErrorInvalidValue;
  if (p.n == 0 || p.v == 0 || p.d == 0) return cce_backward(p, type, stream);  // TMA knows no empty tensor
  return type == Element::bf16 ? cce_backward_in_chunks<WgmmaPath, Bf16>(p, stream)
                               : cce_backward_in_chunks<WgmmaPath, Fp16>(p, stream);
}

}  // namespace lossk::head
