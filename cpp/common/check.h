// Errors of the C++ side: "op: argument must be ..., got ...". Python turns most bad input away before this.
#pragma once
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <initializer_list>
#include <sstream>
#include <stdexcept>
#include <string>

namespace lossk {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw std::runtime_error(text.str());
}

// check(cond, "cce: ...", value): throws the joined text where cond is false.
template <class... Parts>
void check(bool ok, const Parts&... parts) {
  if (!ok) fail(parts...);
}

template <class Sizes>
std::string shape_text(const Sizes& sizes) {
  std::ostringstream text;
  text << '[';
  const char* comma = "";
  for (int64_t size : sizes) {
    text << comma << size;
    comma = ", ";
  }
  text << ']';
  return text.str();
}

inline const char* dtype_name(ScalarType type) {
  switch (type) {
    case ScalarType::Float: return "float32";
    case ScalarType::Double: return "float64";
    case ScalarType::BFloat16: return "bfloat16";
    case ScalarType::Half: return "float16";
    case ScalarType::Long: return "int64";
    case ScalarType::Short: return "int16";
    case ScalarType::Bool: return "bool";
    default: return "another dtype";
  }
}

inline void check_tensor(
    const char* op, const char* argument, const Tensor& x, std::initializer_list<int64_t> shape, ScalarType type) {
  bool same = x.dim() == static_cast<int64_t>(shape.size());
  int64_t d = 0;
  for (int64_t size : shape) same = same && x.size(d++) == size;
  check(same, op, ": ", argument, " must have shape ", shape_text(shape), ", got ", shape_text(x.sizes()));
  check(
      x.scalar_type() == type, op, ": ", argument, " must be ", dtype_name(type), ", got ",
      dtype_name(x.scalar_type()));
}

}  // namespace lossk
