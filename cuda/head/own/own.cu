#include "head/own/own.cuh"

#include "device/launch.h"

namespace lossk::head {

cudaError_t take_off_own(const OwnParams& p, Element type, cudaStream_t stream) {
  if (p.rows == 0 || p.columns == 0) return cudaSuccess;
  if (p.distance == Distance::none || !p.sum || !p.out || (p.distance != Distance::cosine && !p.of))
    return cudaErrorInvalidValue;
  const Launch l{ceil_div(p.rows, kOwnRows), kOwnThreads, 0, stream};
  switch (type) {
    case Element::bf16: return launch(own_of_rows<Bf16>, l, p);
    case Element::fp16: return launch(own_of_rows<Fp16>, l, p);
    case Element::fp32: return launch(own_of_rows<float>, l, p);
    default: return cudaErrorInvalidValue;
  }
}

}  // namespace lossk::head
