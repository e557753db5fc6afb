// The tables that products.cpp chooses from, one per CPU and dtype.
#pragma once
#include "common/products.h"

namespace lossk {

#define LOSSK_PRODUCTS(cpu)                            \
  extern const Products<float> products_##cpu##_float; \
  extern const Products<float> products_##cpu##_bf16;  \
  extern const Products<float> products_##cpu##_fp16;  \
  extern const Products<double> products_##cpu##_double;
LOSSK_PRODUCTS(portable)
LOSSK_PRODUCTS(avx2)
LOSSK_PRODUCTS(avx512)
#undef LOSSK_PRODUCTS
extern const Products<float> products_avx512bf16_bf16;
extern const Products<float> products_amxbf16_bf16;

}  // namespace lossk
