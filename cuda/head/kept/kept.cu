#include "device/launch.h"
#include "head/gradient/gradient.h"
#include "head/kept/dlogits.cuh"
#include "head/kept/keep.cuh"
#include "head/product/launch_mma.h"

namespace lossk::head {
namespace {

template <class T>
cudaError_t kept_dlogits_of(const KeptDlogitsParams& p, bool full, const Launch& l) {
  if (full) return launch(dlogits_of_kept<T, FullDlogits>, l, p);
  if (p.dlogits.head.plain() && !p.dlogits.row_sums) return launch(dlogits_of_kept<T, PlainDlogits>, l, p);
  return launch(dlogits_of_kept<T, AnyDlogits>, l, p);
}

}  // namespace

cudaError_t keep_logits(const StatsParams& p, Element type, bool full, cudaStream_t stream) {
  return keep_by<MmaSync>(p, type, full, stream);
}

cudaError_t kept_dlogits(const KeptDlogitsParams& p, Element type, bool full, cudaStream_t stream) {
  const DlogitsParams& d = p.dlogits;
  if (d.head.rows == 0 || d.head.columns == 0) return cudaSuccess;
  if (!valid(d, type) || p.kept.stride % 2 || p.kept.stride < d.head.columns) return cudaErrorInvalidValue;
  const int spans = ceil_div(d.head.columns, kKeptSpan);
  if (spans > 65535) return cudaErrorInvalidValue;
  const Launch l{dim3(ceil_div(d.head.rows, kKeptRows), spans), kKeptThreads, 0, stream};
  switch (type) {
    case Element::bf16: return kept_dlogits_of<Bf16>(p, full, l);
    case Element::fp16: return kept_dlogits_of<Fp16>(p, full, l);
    default: return cudaErrorInvalidValue;
  }
}

}  // namespace lossk::head
