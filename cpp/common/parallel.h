// Threads come from torch's own pool, so torch.set_num_threads rules here too.
#pragma once
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>

#include "common/math.h"

namespace lossk {

inline int64_t workers() { return std::max<int64_t>(1, torch::stable::get_num_threads()); }

// body(worker, item) for every item in [0, count), on at most `most` threads, worker < most telling them apart. Items
// go to whoever is free: no result may depend on who does which. Trap: body must not throw, nothing catches it.
template <class Body>
void parallel_items(int64_t count, int64_t most, const Body& body) {
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, std::min(count, most), 1, [&](int64_t first, int64_t last) {
    for (int64_t w = first; w < last; ++w)
      for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) body(w, i);
  });
}

// body(worker, begin, end) on at most `most` ranges of [0, count) that are cut at multiples of `width`; one at least.
template <class Body>
void parallel_shares(int64_t count, int64_t width, int64_t most, const Body& body) {
  const int64_t panels = ceil_div(count, width), shares = std::clamp<int64_t>(panels, 1, most);
  parallel_items(shares, most, [&](int64_t worker, int64_t i) {
    body(worker, panels * i / shares * width, std::min(panels * (i + 1) / shares * width, count));
  });
}

// body(begin, end) on disjoint ranges of [0, count).
template <class Body>
void parallel_ranges(int64_t count, const Body& body) {
  torch::stable::parallel_for(0, count, std::max<int64_t>(1, ceil_div(count, workers())), body);
}

}  // namespace lossk
