// Distances that no product gives, summed element by element: the same words for a CPU and for a GPU.
#pragma once

namespace lossk {

enum class ElementDistance : int {
  manhattan,             // sum |delta|
  bray_curtis,           // sum |delta| / S, S = row_term + column_term
  bray_curtis_standard,  // the same, S = max(|row_term + column_term| + p, 10 p)
  chebyshev,             // max |delta|, with its gradient to the first that is
  smooth_chebyshev,      // log(sum exp(p |delta|)) / p
  minkowski,             // (sum |delta|^p)^(1/p); where p < 1 the slope at delta = 0, infinite, counts as 0
  canberra,              // sum |delta| / (|x| + |w| + p)
  canberra_robust,       // sum |delta| / max(|x| + |w|, p)
  canberra_weighted,     // sum |delta| s^(p-1) / sum s^p, s = |x| + |w| + 1e-4
};
constexpr const char* kElementDistanceNames[] = {"manhattan", "bray_curtis",      "bray_curtis_standard",
                                                 "chebyshev", "smooth_chebyshev", "minkowski",
                                                 "canberra",  "canberra_robust",  "canberra_weighted"};

constexpr bool is_divided(ElementDistance k) {  // by S
  return k == ElementDistance::bray_curtis || k == ElementDistance::bray_curtis_standard;
}

template <class T>
struct Metric {
  ElementDistance kind;
  T p, power, eps;
};

}  // namespace lossk
