// The tables that epilogue.cpp chooses from, one per CPU.
#pragma once
#include "head/epilogue.h"

namespace lossk {

extern const Epilogue<float> epilogue_portable_float, epilogue_avx2_float, epilogue_avx512_float;
extern const Epilogue<double> epilogue_portable_double, epilogue_avx2_double, epilogue_avx512_double;

}  // namespace lossk
