#include "common/products.h"

#include "common/check.h"
#include "common/cpu.h"
#include "common/products_tables.h"

namespace lossk {

#if !defined(__x86_64__)  // only the portable files are built
#define products_avx2_float products_portable_float
#define products_avx2_bf16 products_portable_bf16
#define products_avx2_fp16 products_portable_fp16
#define products_avx2_double products_portable_double
#define products_avx512_float products_portable_float
#define products_avx512_bf16 products_portable_bf16
#define products_avx512_fp16 products_portable_fp16
#define products_avx512_double products_portable_double
#define products_avx512bf16_bf16 products_portable_bf16
#define products_amxbf16_bf16 products_portable_bf16
#endif

template <>
const Products<float>& products<float>(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Float: return choose(products_portable_float, products_avx2_float, products_avx512_float);
    case ScalarType::Half: return choose(products_portable_fp16, products_avx2_fp16, products_avx512_fp16);
    case ScalarType::BFloat16:
      if (cpu() == Cpu::amxbf16) return products_amxbf16_bf16;
      if (cpu() == Cpu::avx512bf16) return products_avx512bf16_bf16;
      return choose(products_portable_bf16, products_avx2_bf16, products_avx512_bf16);
    default: fail("lossk: no float products for ", dtype_name(dtype));
  }
}

template <>
const Products<double>& products<double>(ScalarType) {
  return choose(products_portable_double, products_avx2_double, products_avx512_double);
}

}  // namespace lossk
