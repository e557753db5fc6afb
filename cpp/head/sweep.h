// Passes over the vocabulary for a chunk of rows: the loops that statistics, loss and gradients share.
//
// Three products, each with one owner per output element and one order of sums, whatever the thread count:
//   logits = input weight^T        parallel over segments of the vocabulary
//   d weight += g^T input          parallel over segments, which own their rows of d weight
//   d input += g weight            parallel over columns of D, segments in order
// The raw logits of a chunk live in `block` [segment][row][kSegment]; the gradient g replaces them there, packed.
#pragma once
#include "common/parallel.h"
#include "head/sketch.h"

namespace lossk {

template <class T>
struct GradSinks {              // null: not wanted
  T* input = nullptr;           // [rows of the chunk, D], added to
  T* weight = nullptr;          // [columns of the segments, D], added to, or written where fresh
  T* bias = nullptr;            // [V], added to
  GradSums<T>* sums = nullptr;  // [rows of the chunk], added to
  bool fresh = false;
};

template <class T>
class Sweep {
 public:
  // Room for chunks of max_rows, and for the raw logits of max_segments (0: statistics only, logits come and go).
  Sweep(const Head<T>&, int64_t max_rows, int64_t max_segments);

  // The following calls are about the active rows [begin, begin + count).
  void take_rows(int64_t begin, int64_t count);

  // Each row's state over the whole vocabulary -> states [count]; picked logits -> logits [N, K]. `keep` leaves the
  // raw logits in the block. With `full` the picked logits are out of the sums, see Epilogue. A sketch, where not null,
  // is of these rows: begin must be a multiple of its block.
  void stats(bool full, bool keep, RowState<double>* states, T* logits, const Sketch* sketch = nullptr);

  // Gradients of segments [s0, s1), from the raw logits that stats kept or anew. coefs [count].
  void grads(int64_t s0, int64_t s1, bool kept, bool full, const RowCoef<T>* coefs, const GradSinks<T>&);

 private:
  void logits(int64_t r0, int64_t r1, int64_t columns, const char* weight_panels, T* out) const;
  void correct(const Sketch&, const RowState<T>* states, const RowState<double>* merged) const;
  void input_grads(int64_t s0, int64_t s1, T* grad_input) const;

  const Head<T>& head_;
  const Products<T>& products_;
  const int64_t workers_ = workers();  // once: the scratch below is made for as many
  const int64_t block_stride_;         // elements of one segment's part of the block
  int64_t begin_ = 0, count_ = 0, row_steps_ = 0;
  bool has_rows_t_ = false;
  typename Head<T>::Rows source_{};
  Scratch gathered_, rows_, rows_t_, block_, sums_;  // shared
  Scratch weight_, g_t_, tile_;                      // one for each worker
};

}  // namespace lossk
