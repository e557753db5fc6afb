#include "common/cpu.h"
#include "head/epilogue_impl.h"
#include "head/epilogue_tables.h"

namespace lossk {
const Epilogue<float> epilogue_avx2_float = make_epilogue<Avx2, float>();
const Epilogue<double> epilogue_avx2_double = make_epilogue<Avx2, double>();
}  // namespace lossk
