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

constexpr int64_t kRowBlock = 192;  // rows whose logits are made at a time: 288 KB of float, in L2 for the epilogue

template <class T>
struct GradSinks {              // null: not wanted
  T* input = nullptr;           // [rows of the chunk, D], added to
  T* weight = nullptr;          // [columns of the segments, D], added to, or written where fresh
  T* bias = nullptr;            // [V], added to
  GradSums<T>* sums = nullptr;  // [rows of the chunk], added to
  bool fresh = false;
};

// What is done with raw logits, a segment of one row after the other. A worker says which segment it opens and which
// rows come next; it does so for several segments at the same time as other workers.
template <class T>
struct OpenSegment {
  virtual void open(int64_t /*worker*/, int64_t /*segment*/) {}
  virtual void rows(int64_t /*worker*/, int64_t /*r0*/, int64_t /*r1*/) {}

 protected:
  ~OpenSegment() = default;
};
template <class T>
struct Visitor : OpenSegment<T> {
  virtual void row(int64_t worker, int64_t segment, const Segment<T>&, int64_t r, const T* raw) = 0;
};
template <class T>
struct Gradient : OpenSegment<T> {
  // d loss / d raw -> g, zero beyond the segment's count; returns its sums.
  virtual GradSums<T> row(int64_t worker, const Segment<T>&, int64_t r, const T* raw, T* g) = 0;
};

// That of statistics.
template <class T>
struct CoefGradient final : Gradient<T> {
  const Head<T>& head;
  const int64_t begin;
  const bool full;
  const RowCoef<T>* coefs;
  CoefGradient(const Head<T>& h, int64_t b, bool f, const RowCoef<T>* c) : head(h), begin(b), full(f), coefs(c) {}

  GradSums<T> row(int64_t, const Segment<T>& segment, int64_t r, const T* raw, T* g) override {
    const int64_t row = head.rows[begin + r];
    const auto one_row = full ? head.epilogue.grad_full : head.epilogue.grad_lse;
    return one_row(segment, raw, head.terms(row), head.index(row), coefs[r], g);
  }
};

template <class T>
class Sweep {
 public:
  // Room for chunks of max_rows, and for the raw logits of max_segments (0: statistics only, logits come and go).
  Sweep(const Head<T>&, int64_t max_rows, int64_t max_segments);

  // The following calls are about the active rows [begin, begin + count).
  void take_rows(int64_t begin, int64_t count);

  // All segments of the rows' raw logits, which `keep` leaves in the block.
  void visit(Visitor<T>&, bool keep = false);

  // Each row's state over the whole vocabulary -> states [count]; picked logits -> logits [N, K]. `keep` leaves the
  // raw logits in the block. With `full` the picked logits are out of the sums, see Epilogue. A sketch, where not null,
  // is of these rows: begin must be a multiple of its block.
  void stats(bool full, bool keep, RowState<double>* states, T* logits, const Sketch* sketch = nullptr);

  // Gradients of segments [s0, s1), from the raw logits that were kept or anew.
  void grads(int64_t s0, int64_t s1, bool kept, Gradient<T>&, const GradSinks<T>&);

  // For a worker that visits the same rows of another sweep: its segment of this one, and the raw logits of some rows,
  // [r1 - r0, kSegment], r0 a multiple of mr and r1 - r0 at most kRowBlock. Good until its next call.
  void open(int64_t worker, int64_t segment) const { head_.pack_weight(segment, weight_.template get<char>(worker)); }
  const T* make(int64_t worker, int64_t segment, int64_t r0, int64_t r1) const;

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
