#include "head/live.h"

#include <algorithm>

#include "common/parallel.h"

namespace lossk {
namespace {

constexpr double kDense = 0.7;  // where more is live than this, all is: gathering then costs more than it saves

std::vector<int32_t> places(const std::vector<char>& live) {
  std::vector<int32_t> found;
  for (size_t v = 0; v < live.size(); ++v)
    if (live[v]) found.push_back(int32_t(v));
  return found;
}

}  // namespace

template <class T>
LiveColumns<T>::LiveColumns(const Head<T>& head, const c10::BFloat16* sketch, double tau)
    : head_(head),
      sketch_(sketch),
      columns_(ceil_div<int64_t>(head.rows.size(), Sketch::kRows)),
      dead_(columns_.size()) {
  parallel_items(blocks(), workers(), [&](int64_t, int64_t block) {
    std::vector<char> live(head.vocab);
    const c10::BFloat16* mass = sketch + block * head.vocab;
    for (int64_t v = 0; v < head.vocab; ++v) live[v] = !(float(mass[v]) < tau);  // nan is live
    for (int64_t i = begin(block); i < end(block); ++i)
      for (int64_t k = 0; k < head.picks; ++k)
        if (const int64_t v = head.index(head.rows[i])[k]; v >= 0) live[v] = 1;
    if (std::count(live.begin(), live.end(), 1) > int64_t(kDense * head.vocab)) std::fill(live.begin(), live.end(), 1);
    columns_[block] = places(live);
    // Several sums side by side: one chain of additions would wait for each.
    constexpr int64_t kSums = 8;
    Dead sums[kSums];
    for (int64_t v = 0; v < head.vocab; ++v) {
      const double q = live[v] ? 0.0 : double(float(mass[v]));
      sums[v % kSums].mass += q, sums[v % kSums].square += q * q;
    }
    for (const Dead& sum : sums) dead_[block].mass += sum.mass, dead_[block].square += sum.square;
  });
}

template <class T>
std::vector<int32_t> LiveColumns<T>::any() const {
  std::vector<char> live(head_.vocab);
  for (const auto& columns : columns_)
    for (int32_t v : columns) live[v] = 1;
  return places(live);
}

template <class T>
void LiveColumns<T>::dead(int64_t block, int64_t segment, T* dead) const {
  const int64_t first = segment * kSegment, count = std::min(kSegment, head_.vocab - first);
  const c10::BFloat16* mass = sketch_ + block * head_.vocab + first;
  for (int64_t v = 0; v < count; ++v) dead[v] = T(float(mass[v]));
  std::fill(dead + count, dead + kSegment, T(0));
  const auto& live = columns_[block];
  for (auto v = std::lower_bound(live.begin(), live.end(), first); v != live.end() && *v < first + count; ++v)
    dead[*v - first] = T(0);
}

template class LiveColumns<float>;
template class LiveColumns<double>;

}  // namespace lossk
