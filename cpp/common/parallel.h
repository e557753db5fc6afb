// Threads come from torch's own pool, so torch.set_num_threads rules here too.
#pragma once
#include <torch/csrc/stable/ops.h>

#include <algorithm>

namespace lossk {

inline int64_t workers() { return std::max<int64_t>(1, torch::stable::get_num_threads()); }

// body(worker, begin, end) on at most `most` disjoint ranges of [0, count), each with a worker number of its own below
// `most`. How the work is cut depends on the thread count: no result may. Trap: body must not throw, nothing catches
// it.
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

}  // namespace lossk
