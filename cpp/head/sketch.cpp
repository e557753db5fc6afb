#include "head/sketch.h"

#include <algorithm>
#include <cmath>

#include "head/columns.h"
#include "head/sweep.h"

namespace lossk {
namespace {

// The columns that active rows pick, at most `most` of them, the most frequent; ascending.
template <class T>
std::vector<int32_t> picked_often(const Head<T>& head, int64_t most) {
  std::vector<int32_t> count(head.vocab), ids;
  for (int64_t row : head.rows)
    for (int64_t k = 0; k < head.picks; ++k)
      if (const int64_t v = head.index(row)[k]; v >= 0 && count[v]++ == 0) ids.push_back(int32_t(v));
  std::sort(
      ids.begin(), ids.end(), [&](int32_t u, int32_t v) { return count[u] != count[v] ? count[u] > count[v] : u < v; });
  if (int64_t(ids.size()) > most) ids.resize(most);
  std::sort(ids.begin(), ids.end());
  return ids;
}

template <class T>
std::vector<double> lse_over(
    const HeadArgs& args, const Head<T>& head, const std::vector<int32_t>& ids, int64_t rows_at_once) {
  const int64_t active = head.rows.size();
  std::vector<double> lse(active, -INFINITY);
  if (ids.empty()) return lse;
  const Columns<T> columns(args, head, ids.data(), ids.size(), 0, active);
  Sweep<T> sweep(columns.head, rows_at_once, 0);
  std::vector<RowState<double>> states(rows_at_once);
  const Scratch picked(args.op, head.total * head.picks * sizeof(T));
  for (int64_t begin = 0; begin < active; begin += rows_at_once) {
    const int64_t count = std::min(rows_at_once, active - begin);
    sweep.take_rows(begin, count);
    sweep.stats(false, false, states.data(), picked.get<T>());
    for (int64_t r = 0; r < count; ++r) lse[begin + r] = states[r].lse();
  }
  return lse;
}

double log_add(double a, double b) {
  const double high = std::max(a, b);
  return high == -INFINITY ? high : high + std::log1p(std::exp(std::min(a, b) - high));
}

}  // namespace

template <class T>
std::vector<double> estimate_lse(const HeadArgs& args, const Head<T>& head, int64_t rows_at_once) {
  const int64_t most = round_up(ceil_div<int64_t>(head.vocab, 128), kSegment);
  const std::vector<int32_t> often = picked_often(head, most);
  std::vector<int32_t> others, samples[2];
  auto next = often.begin();
  for (int32_t v = 0; v < head.vocab; ++v)
    if (next != often.end() && *next == v) ++next;
    else others.push_back(v);
  const int64_t size = std::min<int64_t>(most, others.size());
  for (int64_t i = 0; i < size; ++i) samples[i % 2].push_back(others[i * others.size() / size]);

  std::vector<double> lse = lse_over(args, head, often, rows_at_once);
  // The lower of two: a sample with a heavy column in it says too much of the rest, by the factor it stands for.
  std::vector<double> rest(lse.size(), INFINITY);
  for (const auto& sample : samples) {
    const std::vector<double> part = lse_over(args, head, sample, rows_at_once);
    const double stands_for = std::log(double(others.size()) / double(std::max<size_t>(1, sample.size())));
    for (size_t i = 0; i < rest.size(); ++i) rest[i] = std::min(rest[i], part[i] + stands_for);
  }
  for (size_t i = 0; i < lse.size(); ++i) lse[i] = log_add(lse[i], rest[i]);
  return lse;
}

template std::vector<double> estimate_lse(const HeadArgs&, const Head<float>&, int64_t);
template std::vector<double> estimate_lse(const HeadArgs&, const Head<double>&, int64_t);

}  // namespace lossk
