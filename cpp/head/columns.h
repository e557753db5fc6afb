// A head over some columns of the vocabulary only: what is a sweep over all of V becomes one over the live columns.
#pragma once
#include "head/head.h"

namespace lossk {

template <class T>
class Columns {
 public:
  // The columns ids[0 .. count), ascending, of a head made from `args`; for its active rows [begin, end).
  Columns(const HeadArgs& args, const Head<T>&, const int32_t* ids, int64_t count, int64_t begin, int64_t end);
  Columns(const Columns&) = delete;  // the head points into this

 private:
  Tensor weight_;
  std::optional<Tensor> bias_, index_, aux_, columns_;
  std::optional<DistanceArgs> distance_;

 public:
  const Head<T> head;
};

}  // namespace lossk
