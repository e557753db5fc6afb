#include "common/cpu.h"
#include "head/elementwise_impl.h"
#include "head/elementwise_tables.h"

namespace lossk {
const Elementwise<float> elementwise_avx512_float = make_elementwise<Avx512, float>();
const Elementwise<double> elementwise_avx512_double = make_elementwise<Avx512, double>();
}  // namespace lossk
