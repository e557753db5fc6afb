// The tables that elementwise_kernels.cpp chooses from, one per CPU.
#pragma once
#include "head/elementwise.h"

namespace lossk {

extern const Elementwise<float> elementwise_portable_float, elementwise_avx2_float, elementwise_avx512_float;
extern const Elementwise<double> elementwise_portable_double, elementwise_avx2_double, elementwise_avx512_double;

}  // namespace lossk
