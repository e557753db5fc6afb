#include "head/compare_rows.h"

#include "common/cpu.h"
#include "head/compare_tables.h"

namespace lossk {

#if !defined(__x86_64__)  // only the portable files are built
#define compare_avx2_float compare_portable_float
#define compare_avx2_double compare_portable_double
#define compare_avx512_float compare_portable_float
#define compare_avx512_double compare_portable_double
#endif

template <>
const CompareRows<float>& compare_rows<float>() {
  return choose(compare_portable_float, compare_avx2_float, compare_avx512_float);
}

template <>
const CompareRows<double>& compare_rows<double>() {
  return choose(compare_portable_double, compare_avx2_double, compare_avx512_double);
}

}  // namespace lossk
