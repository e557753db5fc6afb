#include "common/cpu.h"
#include "common/products_impl.h"
#include "common/products_tables.h"

namespace lossk {
const Products<float> products_avx512_float = make_products<Avx512, float, float, float>("avx512");
const Products<float> products_avx512_bf16 = make_products<Avx512, float, float, Bf16>("avx512");
const Products<float> products_avx512_fp16 = make_products<Avx512, float, float, Fp16>("avx512");
const Products<double> products_avx512_double = make_products<Avx512, double, double, double>("avx512");
}  // namespace lossk
