#include "head/elementwise.h"

#include "common/cpu.h"
#include "head/elementwise_tables.h"

namespace lossk {

#if !defined(__x86_64__)  // only the portable files are built
#define elementwise_avx2_float elementwise_portable_float
#define elementwise_avx2_double elementwise_portable_double
#define elementwise_avx512_float elementwise_portable_float
#define elementwise_avx512_double elementwise_portable_double
#endif

template <>
const Elementwise<float>& elementwise<float>() {
  return choose(elementwise_portable_float, elementwise_avx2_float, elementwise_avx512_float);
}

template <>
const Elementwise<double>& elementwise<double>() {
  return choose(elementwise_portable_double, elementwise_avx2_double, elementwise_avx512_double);
}

}  // namespace lossk
