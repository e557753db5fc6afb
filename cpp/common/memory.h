// Scratch space for kernels. Large pages were tried for it (madvise): slower, the kernel then compacts memory.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "common/check.h"

namespace lossk {

// Uninitialised memory, aligned for vectors; `copies` of it, one for each worker.
class Scratch {
 public:
  Scratch(const char* op, int64_t bytes, int64_t copies = 1) : stride_((bytes + 63) / 64 * 64) {
    const int64_t total = std::max<int64_t>(stride_ * copies, 64);
    memory_.reset(static_cast<char*>(std::aligned_alloc(64, total)));
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
