// The term of its own point that a distance's gradient has beside the products' (cpp/head/head.h, own_input).
#pragma once
#include "head/head.h"
#include "head/product/matrix.h"

namespace lossk::head {

// out[ids[i]] = sum[i] - by_i point_i, by_i = of[i], or of cosine (sum[i] . point_i) / |point_i|^2; a point without
// length has no gradient.
struct OwnParams {
  Distance distance;
  const float* sum;  // [rows, columns], may be `out`
  const float* of;   // [rows]; of cosine not looked at
  Matrix points;     // contiguous along columns, as laid out for the products
  int rows, columns;
  Count count;     // of rows
  const int* ids;  // null: itself
  void* out;
  bool wide;  // out is float32 where the type is narrower
};

[[nodiscard]] cudaError_t take_off_own(const OwnParams& p, device::Element type, cudaStream_t stream);

}  // namespace lossk::head
