// What a live backward does about the columns that it does not visit: rank-one terms sum_t q_t c_t^T, q_t over the
// vocabulary and c_t over the rows. One for each block (q its mass on dead columns, normalised; c_i what is missing in
// the row's total), and one for the dense part of the loss (q = aux, c = b), which never passes through a sketch.
#pragma once
#include "head/live.h"

namespace lossk {

template <class T>
class Fill {
 public:
  Fill(const Head<T>&, const LiveColumns<T>&, bool blocks, bool dense);

  // missing, dense: c over all active rows, before the row's scale.
  void set_rows(const T* missing, const T* dense);
  // d input and d scale of all active rows, added to.
  void add_input(T* grad_input, GradSums<T>* sums) const;
  // d bias of one segment, where not null, and what its d weight is made from -> panels. Room for q [terms, kSegment]
  // and the panels is the caller's, one for each worker.
  void open_segment(int64_t segment, T* bias, T* q, char* panels) const;
  // d weight of its columns [v0, v0 + count), v0 a multiple of mr -> weight [count, D].
  void weight_rows(const char* panels, int64_t v0, int64_t count, T* weight) const;
  int64_t q_bytes() const { return terms_ * kSegment * int64_t(sizeof(T)); }
  int64_t panel_bytes() const { return head_.products.bytes(kSegment, head_.products.mr, terms_); }

 private:
  void weights(int64_t segment, T* q) const;  // [terms, kSegment]
  template <class Body>
  void for_rows(const Body&) const;

  const Head<T>& head_;
  const LiveColumns<T>& live_;
  const bool blocks_, dense_;
  const int64_t terms_;
  const T *missing_ = nullptr, *dense_rows_ = nullptr;
  Scratch sums_;          // [terms, D]: sum_i s_i c_i input_i
  Scratch panels_;        // the same, packed
  std::vector<T> total_;  // [terms]: sum_i s_i c_i
};

}  // namespace lossk
