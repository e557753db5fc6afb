// What every op of the head is called with, see ops.cpp: the same for a CPU and for a GPU.
#pragma once
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "common/check.h"
#include "head/compare.h"
#include "head/distance.h"

namespace lossk {

inline const std::optional<Tensor> kAbsent;  // of what an op does not take

// Of a head whose logits are of a distance (distance.h).
struct DistanceArgs {
  std::string kind;
  double power;
  const Tensor &rows, &columns;  // [4, N]: scale, offset, eps, the target's t; [V]
};

struct HeadArgs {
  const char* op;
  const Tensor &input, &linear_weight;
  const std::optional<Tensor>&linear_bias, &scale, &index, &aux, &active;
  double softcap, margin;
  const DistanceArgs* distance = nullptr;
};

// What the ops of a distance take, as a head's.
struct PointArgs {
  const std::optional<Tensor> picks;
  const DistanceArgs distance;
  const HeadArgs head;
  PointArgs(
      const char* op, const Tensor& input, const Tensor& linear_weight, const Tensor& rows, const Tensor& columns,
      const Tensor& index, const std::optional<Tensor>& active, const std::string& kind, double power)
      : picks(index),
        distance{kind, power, rows, columns},
        head{op, input, linear_weight, kAbsent, kAbsent, picks, kAbsent, active, 0, 0, &distance} {}
  PointArgs(const PointArgs&) = delete;  // head points into this
};

inline Distance distance_of(const char* op, const std::string& name) {
  for (int k = 1; k < int(std::size(kDistanceNames)); ++k)
    if (name == kDistanceNames[k]) return Distance(k);
  fail(op, ": kind is unknown, got ", name);
}

// A kind of two heads, or one of a head and numbers, by its name.
inline Compare compare_of(const char* op, const std::string& name, bool two_heads) {
  for (int k = 0; k < int(std::size(kCompareNames)); ++k)
    if (name == kCompareNames[k] && of_two_heads(Compare(k)) == two_heads) return Compare(k);
  fail(op, ": kind is unknown, got ", name);
}

struct Wanted {  // gradients
  bool input, weight, bias, scale;
  Wanted(const char* op, const std::vector<bool>& flags) {
    check(flags.size() == 4, op, ": needs_grad must have 4 entries (input, weight, bias, scale), got ", flags.size());
    input = flags[0], weight = flags[1], bias = flags[2], scale = flags[3];
  }
  bool any() const { return input || weight || bias || scale; }
};

// needs_grad of a distance's ops: input and weight alone.
inline std::vector<bool> of_points(const char* op, const std::vector<bool>& flags) {
  check(flags.size() == 2, op, ": needs_grad must have 2 entries (input, weight), got ", flags.size());
  return {flags[0], flags[1], false, false};
}

}  // namespace lossk
