#include "common/cpu.h"
#include "head/compare_impl.h"
#include "head/compare_tables.h"

namespace lossk {
const CompareRows<float> compare_portable_float = make_compare_rows<Portable, float>();
const CompareRows<double> compare_portable_double = make_compare_rows<Portable, double>();
}  // namespace lossk
