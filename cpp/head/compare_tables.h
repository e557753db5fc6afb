// The tables that compare_rows.cpp chooses from, one per CPU.
#pragma once
#include "head/compare_rows.h"

namespace lossk {

extern const CompareRows<float> compare_portable_float, compare_avx2_float, compare_avx512_float;
extern const CompareRows<double> compare_portable_double, compare_avx2_double, compare_avx512_double;

}  // namespace lossk
