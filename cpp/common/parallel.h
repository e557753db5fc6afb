// Threads come from torch's own pool, so torch.set_num_threads rules here too.
#pragma once
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "common/check.h"

namespace lossk {

inline int64_t workers() { return std::max<int64_t>(1, torch::stable::get_num_threads()); }

// body(worker, begin, end) on at most `most` disjoint ranges of [0, count), each with a worker number of its own below
// `most`. How the work is cut depends on the thread count: no result may. Trap: body must not throw, nothing catches it.
template <class Body>
void parallel(int64_t count, int64_t most, const Body& body) {
  const int64_t parts = std::min(count, most);
  if (parts <= 0) return;
  torch::stable::parallel_for(0, parts, 1, [&](int64_t first, int64_t last) {
    for (int64_t w = first; w < last; ++w) body(w, count * w / parts, count * (w + 1) / parts);
  });
}

template <class Body>
void parallel(int64_t count, const Body& body) {
  parallel(count, workers(), [&](int64_t, int64_t begin, int64_t end) { body(begin, end); });
}

// Uninitialised memory, aligned for vectors; `copies` of it, one for each worker.
class Scratch {
 public:
  Scratch(const char* op, int64_t bytes, int64_t copies = 1) : stride_((bytes + 63) / 64 * 64) {
    const int64_t total = stride_ * copies;
    memory_.reset(static_cast<char*>(std::aligned_alloc(64, std::max<int64_t>(total, 64))));
    check(memory_ != nullptr, op, ": could not allocate ", total >> 20, " MiB of workspace; out of memory?");
  }
  template <class T>
  T* get(int64_t copy = 0) const {
    return reinterpret_cast<T*>(memory_.get() + copy * stride_);
  }

 private:
  struct Free {
    void operator()(char* p) const { std::free(p); }
  };
  int64_t stride_;
  std::unique_ptr<char, Free> memory_;
};

}  // namespace lossk
