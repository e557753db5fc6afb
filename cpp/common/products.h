// Matrix products of packed panels, accumulated in T (float or double): what every CPU kernel of lossk is made of.
//
// c[m, n] (+)= a[m, depth] b[n, depth]^T. Each operand is packed first into panels of `width` rows, depth-major:
// [panel][depth / unit][width][unit], zero-padded; a in panels of mr rows, b in panels of nr. Every element of c is the
// same chain of operations wherever its row lies in a tile, so a row's result does not depend on the rows beside it:
// a promise that no BLAS makes. Nor is one faster here: on two Zen 5 cores these run at 490 GFLOP/s in float32 and 970
// in bfloat16 with float32 sums, through torch MKL at 155-200 and oneDNN, which rounds its sums, at 590-750. With AMX,
// on two cores of Sapphire Rapids: 2200 to 4000 in bfloat16, oneDNN, which writes every logit, 1400.
#pragma once
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>

namespace lossk {

using torch::headeronly::ScalarType;

struct PackArgs {
  const void* source;
  int64_t row_stride, depth_stride;
  int64_t count, depth;  // rows and depth to read
  int64_t width, steps;  // of the panels; steps * unit >= depth, the rest is zero
  int64_t panel_stride;  // packed elements from one panel to the next: steps * width when packed whole
};

template <class T>
struct Products {
  const char* name;
  int64_t mr, nr;
  int64_t unit;                                       // depth elements in one packed element: of bfloat16 2, or 32
  int64_t element_bytes;                              // of a packed element
  void (*pack_input)(const PackArgs&, void* panels);  // from the tensors' dtype
  void (*pack_grad)(const PackArgs&, void* panels);   // from T, rounded to what the product reads
  void (*gemm)(
      int64_t m, int64_t n, int64_t steps, const void* a, const void* b, T* c, int64_t c_stride, bool accumulate);

  static constexpr int64_t max_mr = 32;

  int64_t steps(int64_t depth) const { return (depth + unit - 1) / unit; }
  int64_t bytes(int64_t count, int64_t width, int64_t depth) const {
    return (count + width - 1) / width * width * steps(depth) * element_bytes;
  }
};

// The products for tensors of this dtype on this CPU. T is double for float64 tensors, float for the others.
template <class T>
const Products<T>& products(ScalarType dtype);

}  // namespace lossk
