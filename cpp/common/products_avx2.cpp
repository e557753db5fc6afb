#include "common/cpu.h"
#include "common/products_impl.h"
#include "common/products_tables.h"

namespace lossk {
const Products<float> products_avx2_float = make_products<Avx2, float, float, float>("avx2");
const Products<float> products_avx2_bf16 = make_products<Avx2, float, float, Bf16>("avx2");
const Products<float> products_avx2_fp16 = make_products<Avx2, float, float, Fp16>("avx2");
const Products<double> products_avx2_double = make_products<Avx2, double, double, double>("avx2");
}  // namespace lossk
