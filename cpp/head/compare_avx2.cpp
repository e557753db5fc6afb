#include "common/cpu.h"
#include "head/compare_impl.h"
#include "head/compare_tables.h"

namespace lossk {
const CompareRows<float> compare_avx2_float = make_compare_rows<Avx2, float>();
const CompareRows<double> compare_avx2_double = make_compare_rows<Avx2, double>();
}  // namespace lossk
