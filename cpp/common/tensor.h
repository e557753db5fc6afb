// Allocation and element access. Kernels below the op functions see raw pointers only.
#pragma once
#include <torch/csrc/stable/ops.h>

#include <optional>
#include <vector>

#include "common/memory.h"

namespace lossk {

inline int64_t bytes_of(ScalarType type) {
  switch (type) {
    case ScalarType::Double:
    case ScalarType::Long: return 8;
    case ScalarType::Float:
    case ScalarType::Int: return 4;
    case ScalarType::BFloat16:
    case ScalarType::Half:
    case ScalarType::Short: return 2;
    default: return 1;
  }
}

// Trap: below target 2.13 an error inside torch loses its text, so "out of memory" must be said here.
inline Tensor empty(const char* op, const Tensor& like, std::vector<int64_t> shape, ScalarType type) {
  try {
    return torch::stable::new_empty(like, shape, type);
  } catch (const std::exception&) {
    fail(op, ": could not allocate a ", dtype_name(type), " tensor ", shape_text(shape), "; out of memory?");
  }
}

inline Tensor zeros(const char* op, const Tensor& like, std::vector<int64_t> shape, ScalarType type) {
  Tensor x = empty(op, like, std::move(shape), type);
  return torch::stable::zero_(x);
}

template <class T>
constexpr ScalarType scalar_type_of = std::is_same_v<T, double> ? ScalarType::Double : ScalarType::Float;

template <class T>
T* data(const Tensor& x) {
  return static_cast<T*>(x.data_ptr());
}

// A tensor that stays alive beside the pointer to its contiguous data; null where the optional is empty.
template <class T>
struct Optional {
  std::optional<Tensor> tensor;
  const T* data = nullptr;
  explicit Optional(const std::optional<Tensor>& x) {
    if (!x.has_value()) return;
    tensor = torch::stable::contiguous(*x);
    data = static_cast<const T*>(tensor->data_ptr());
  }
};

}  // namespace lossk
