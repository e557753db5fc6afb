#include "head/epilogue.h"

#include "common/cpu.h"
#include "head/epilogue_tables.h"

namespace lossk {

#if !defined(__x86_64__)  // only the portable files are built
#define epilogue_avx2_float epilogue_portable_float
#define epilogue_avx2_double epilogue_portable_double
#define epilogue_avx512_float epilogue_portable_float
#define epilogue_avx512_double epilogue_portable_double
#endif

template <>
const Epilogue<float>& epilogue<float>() {
  return choose(epilogue_portable_float, epilogue_avx2_float, epilogue_avx512_float);
}

template <>
const Epilogue<double>& epilogue<double>() {
  return choose(epilogue_portable_double, epilogue_avx2_double, epilogue_avx512_double);
}

}  // namespace lossk
