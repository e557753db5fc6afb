#include "common/cpu.h"
#include "head/elementwise_impl.h"
#include "head/elementwise_tables.h"

namespace lossk {
const Elementwise<float> elementwise_portable_float = make_elementwise<Portable, float>();
const Elementwise<double> elementwise_portable_double = make_elementwise<Portable, double>();
}  // namespace lossk
