#include "head/beside.h"

namespace lossk {

template <class T>
CompareTotals total(Compare kind, const ComparedSums<T>* of_segment, int64_t segments, int64_t stride) {
  CompareTotals out;
  if (!in_one_pass(kind)) {
    for (int64_t s = 0; s < segments; ++s) out.a += of_segment[s * stride].a, out.b += of_segment[s * stride].b;
    return out;
  }
  double max_z = -INFINITY, max_u = -INFINITY, sum_z = 0, sum_u = 0, numerator = 0;
  for (int64_t s = 0; s < segments; ++s) {
    max_z = std::max<double>(max_z, of_segment[s * stride].max_z);
    max_u = std::max<double>(max_u, of_segment[s * stride].max_u);
  }
  if (max_z == -INFINITY) max_z = 0;
  if (max_u == -INFINITY) max_u = 0;
  for (int64_t s = 0; s < segments; ++s) {
    const ComparedSums<T>& x = of_segment[s * stride];
    // What it is relative to, and how far that lies below the row's.
    const double z = x.sum_z == 0 ? 0 : double(x.max_z), u = x.sum_u == 0 ? 0 : double(x.max_u);
    const double wz = x.sum_z == 0 ? 0 : std::exp(z - max_z), wu = x.sum_u == 0 ? 0 : std::exp(u - max_u);
    sum_z += wz * x.sum_z, sum_u += wu * x.sum_u;
    if (kind == Compare::forward_kl && wu != 0) numerator += wu * (x.a + x.sum_u * ((u - max_u) - (z - max_z)));
    if (kind == Compare::reverse_kl && wz != 0) numerator += wz * (x.a + x.sum_z * ((z - max_z) - (u - max_u)));
    if (kind == Compare::mean && wz != 0) numerator += wz * x.a;
  }
  out.lse_z = sum_z == 0 ? -INFINITY : max_z + std::log(sum_z);
  out.lse_u = sum_u == 0 ? -INFINITY : max_u + std::log(sum_u);
  if (kind == Compare::forward_kl) out.b = numerator / sum_u - std::log(sum_u) + std::log(sum_z);
  else out.a = numerator / sum_z + (kind == Compare::mean ? 0 : std::log(sum_u) - std::log(sum_z));
  return out;
}

template CompareTotals total(Compare, const ComparedSums<float>*, int64_t, int64_t);
template CompareTotals total(Compare, const ComparedSums<double>*, int64_t, int64_t);

}  // namespace lossk
