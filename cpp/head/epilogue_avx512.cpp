#include "common/cpu.h"
#include "head/epilogue_impl.h"
#include "head/epilogue_tables.h"

namespace lossk {
const Epilogue<float> epilogue_avx512_float = make_epilogue<Avx512, float>();
const Epilogue<double> epilogue_avx512_double = make_epilogue<Avx512, double>();
}  // namespace lossk
