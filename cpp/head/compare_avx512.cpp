#include "common/cpu.h"
#include "head/compare_impl.h"
#include "head/compare_tables.h"

namespace lossk {
const CompareRows<float> compare_avx512_float = make_compare_rows<Avx512, float>();
const CompareRows<double> compare_avx512_double = make_compare_rows<Avx512, double>();
}  // namespace lossk
