#include <immintrin.h>

#include "common/cpu.h"
#include "common/products_impl.h"
#include "common/products_tables.h"

namespace lossk {
namespace {

struct Avx512Bf16 : Avx512 {
  // sum + a.low b.low + a.high b.high, exact products, float accumulation (VDPBF16PS)
  template <class V>
  static V dot(V sum, uint32_t a, V b) {
    return V(_mm512_dpbf16_ps(__m512(sum), (__m512bh)_mm512_set1_epi32(int(a)), (__m512bh)b));
  }
};

}  // namespace

const Products<float> products_avx512bf16_bf16 = make_products<Avx512Bf16, float, uint32_t, Bf16>("avx512bf16");
}  // namespace lossk
