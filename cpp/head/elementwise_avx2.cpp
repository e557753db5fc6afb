#include "common/cpu.h"
#include "head/elementwise_impl.h"
#include "head/elementwise_tables.h"

namespace lossk {
const Elementwise<float> elementwise_avx2_float = make_elementwise<Avx2, float>();
const Elementwise<double> elementwise_avx2_double = make_elementwise<Avx2, double>();
}  // namespace lossk
