// Which columns of the vocabulary a backward visits, from the sketch that forward left.
#pragma once
#include "head/sketch.h"

namespace lossk {

// A column is live for a block of rows where its mass there is tau or more, or a row picks it. So every p >= tau is
// visited, up to the accuracy of the sketch. Lists for several blocks together were measured too (NOTES.md): the work
// grows with the union, and a product 128 deep is deep enough on a CPU.
template <class T>
class LiveColumns {
 public:
  LiveColumns(const Head<T>&, const c10::BFloat16* sketch, double tau);

  int64_t blocks() const { return columns_.size(); }
  int64_t begin(int64_t block) const { return block * Sketch::kRows; }  // its active rows
  int64_t end(int64_t block) const { return std::min<int64_t>(begin(block) + Sketch::kRows, head_.rows.size()); }
  const std::vector<int32_t>& columns(int64_t block) const { return columns_[block]; }  // ascending
  std::vector<int32_t> any() const;                                                     // live in some block
  double share(int64_t block) const { return double(columns_[block].size()) / double(head_.vocab); }
  double dead_mass(int64_t block) const { return dead_[block].mass; }
  double dead_square(int64_t block) const { return dead_[block].square; }  // sum of the squares of its columns' masses

  // A block's mass on the dead columns of a segment -> dead [kSegment], zero elsewhere.
  void dead(int64_t block, int64_t segment, T* dead) const;

 private:
  const Head<T>& head_;
  const c10::BFloat16* sketch_;
  std::vector<std::vector<int32_t>> columns_;
  struct Dead {
    double mass = 0, square = 0;
  };
  std::vector<Dead> dead_;
};

}  // namespace lossk
