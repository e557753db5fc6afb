// What the ops of elementwise distances are called with, see ops.cpp: the same for a CPU and for a GPU.
#pragma once
#include <cmath>

#include "common/tensor.h"
#include "head/arguments.h"
#include "head/element_distance.h"

namespace lossk {

struct ElementwiseArgs {
  const char* op;
  const Tensor &input, &linear_weight, &target;
  const std::optional<Tensor>&active, &row_term, &column_term;
  const std::string& kind;
  double p, power, eps;
  HeadArgs head() const { return {op, input, linear_weight, kAbsent, kAbsent, kAbsent, kAbsent, active, 0, 0}; }
};

inline ElementDistance element_distance_of(const char* op, const std::string& name) {
  for (int k = 0; k < int(std::size(kElementDistanceNames)); ++k)
    if (name == kElementDistanceNames[k]) return ElementDistance(k);
  std::string all;
  for (const char* known : kElementDistanceNames) all += std::string(all.empty() ? "" : ", ") + known;
  fail(op, ": kind must be one of ", all, ", got ", name);
}

// The kind's numbers, in the type that the op computes with.
template <class T>
Metric<T> metric_of(const ElementwiseArgs& a, int64_t dim) {
  const Metric<T> m{element_distance_of(a.op, a.kind), T(a.p), T(a.power), T(a.eps)};
  const auto check_positive = [&](const char* name, double x) {
    check(x > 0 && std::isfinite(x), a.op, ": ", name, " must be a finite number > 0, got ", x);
  };
  check_positive("power", a.power);
  check_positive("eps", a.eps);
  // Those that take no p, and the power of weights, which may be anything.
  if (m.kind == ElementDistance::canberra_weighted) check(std::isfinite(a.p), a.op, ": p must be finite, got ", a.p);
  else if (m.kind >= ElementDistance::smooth_chebyshev || m.kind == ElementDistance::bray_curtis_standard)
    check_positive("p", a.p);
  check(m.eps > 0, a.op, ": eps must be > 0 in ", dtype_name(scalar_type_of<T>), ", got ", a.eps);
  // Places are kept as numbers.
  check(
      m.kind != ElementDistance::chebyshev || dim < 1 << 24, a.op, ": input must have fewer than 2^24 columns, got ",
      dim);
  return m;
}

// Target and terms, of N rows and V columns.
template <class T>
void check_beside(const ElementwiseArgs& a, int64_t rows, int64_t vocab) {
  const bool divided = is_divided(element_distance_of(a.op, a.kind));
  check_tensor(a.op, "target", a.target, {rows}, ScalarType::Long);
  for (const auto& [name, term, size] :
       {std::tuple("row_term", &a.row_term, rows), std::tuple("column_term", &a.column_term, vocab)}) {
    check(
        term->has_value() == divided, a.op, ": ", name, divided ? " must be given for " : " must be absent for ",
        a.kind);
    if (divided) check_tensor(a.op, name, **term, {size}, scalar_type_of<T>);
  }
}

}  // namespace lossk
