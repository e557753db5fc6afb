#include "common/cpu.h"
#include "common/products_impl.h"
#include "common/products_tables.h"

namespace lossk {
const Products<float> products_portable_float = make_products<Portable, float, float, float>("portable");
const Products<float> products_portable_bf16 = make_products<Portable, float, float, Bf16>("portable");
const Products<float> products_portable_fp16 = make_products<Portable, float, float, Fp16>("portable");
const Products<double> products_portable_double = make_products<Portable, double, double, double>("portable");
}  // namespace lossk
