#include "device/launch.h"
#include "head/gradient/gradient.h"
#include "head/kept/dlogits.cuh"
#include "head/kept/keep.cuh"
#include "head/product/launch_mma.h"

namespace lossk::head {
namespace {

template <class T>
cudaError_t kept_dlogits_of(const KeptDlogitsParams& p, bool full, const Launch& l) {
  return full ? launch(dlogits_of_kept<T, true>, l, p) : launch(dlogits_of_kept<T, false>, l, p);
}

}  // namespace

cudaError_t keep_logits(const StatsParams& p, Element type, bool full, cudaStream_t stream) {
  return keep_by<MmaSync>(p, type, full, stream);
}

cudaError_t kept_dlogits(const KeptDlogitsParams& p, Element type, bool full, cudaStream_t stream) {
  const Head& head = p.dlogits.head;
  if (head.rows == 0 || head.columns == 0) return cudaSuccess;
  if (!valid(p.dlogits, type) || !p.kept.valid(head.columns) || p.dlogits.row_sums || head.curved())
    return cudaErrorInvalidValue;
  const int blocks = ceil_div(head.columns, kKeptColumns);
  if (blocks > 65535) return cudaErrorInvalidValue;
  const Launch l{dim3(head.rows, blocks), kKeptThreads, 0, stream};
  switch (type) {
    case Element::bf16: return kept_dlogits_of<Bf16>(p, full, l);
    case Element::fp16: return kept_dlogits_of<Fp16>(p, full, l);
    default: return cudaErrorInvalidValue;
  }
}

}  // namespace lossk::head
