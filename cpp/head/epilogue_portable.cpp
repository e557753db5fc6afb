#include "common/cpu.h"
#include "head/epilogue_impl.h"
#include "head/epilogue_tables.h"

namespace lossk {
const Epilogue<float> epilogue_portable_float = make_epilogue<Portable, float>();
const Epilogue<double> epilogue_portable_double = make_epilogue<Portable, double>();
}  // namespace lossk
