// What every op of the head is called with, see ops.cpp: the same for a CPU and for a GPU.
#pragma once
#include <optional>
#include <vector>

#include "common/check.h"

namespace lossk {

inline const std::optional<Tensor> kAbsent;  // of what an op does not take

struct HeadArgs {
  const char* op;
  const Tensor &input, &linear_weight;
  const std::optional<Tensor>&linear_bias, &scale, &index, &aux, &active;
  double softcap, margin;
};

struct Wanted {  // gradients
  bool input, weight, bias, scale;
  Wanted(const char* op, const std::vector<bool>& flags) {
    check(flags.size() == 4, op, ": needs_grad must have 4 entries (input, weight, bias, scale), got ", flags.size());
    input = flags[0], weight = flags[1], bias = flags[2], scale = flags[3];
  }
  bool any() const { return input || weight || bias || scale; }
};

}  // namespace lossk
