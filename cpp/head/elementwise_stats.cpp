// elementwise_stats on the CPU, schema in ops.cpp.
#include <torch/csrc/stable/library.h>

#include "head/elementwise_call.h"
#include "head/grad_outputs.h"

namespace lossk {
namespace {

struct Total {  // of a row, in double: of exp(z - max) without the target's, and of z
  double max = -INFINITY, sum = 0, total = 0;

  void add(double m, double s, double t) {
    total += t;
    if (s == 0) return;
    const double most = std::max(max, m);
    sum = (sum == 0 ? 0 : sum * std::exp(max - most)) + s * std::exp(m - most), max = most;
  }
  // With the target's z = 0. Where that is the largest the others are small beside its 1, and keep their digits.
  double lse() const { return max > 0 ? max + std::log(sum + std::exp(-max)) : std::log1p(sum * std::exp(max)); }
};

template <class T>
Tensor stats_of(const ElementwiseArgs& args) {
  using Call = ElementwiseCall<T>;
  const Call call(args);
  const auto& head = call.head;
  const int64_t n = head.total, active = head.rows.size(), segments = head.segments(), most = workers();
  Tensor stats = zeros(args.op, args.input, {4, n}, scalar_type_of<T>);
  if (active == 0) return stats;

  const int64_t chunk = std::min(
      call.rows_of_chunk(1),
      round_up<int64_t>(std::max<int64_t>(1, (16 << 20) / (segments * int64_t(sizeof(HarmonicSums<T>)))), Call::kRows));
  const int64_t segment_bytes = std::max<int64_t>(1, call.segment_elements() * int64_t(sizeof(T)));
  const int64_t together = std::clamp<int64_t>((16 << 20) / segment_bytes, 1, segments);
  const Scratch gathered(args.op, head.gather_bytes(chunk)), rows(args.op, call.row_elements(chunk) * sizeof(T));
  const Scratch columns(args.op, segment_bytes, together);
  const Scratch tiles(args.op, Call::kRows * kSegment * sizeof(T), most);
  std::vector<HarmonicSums<T>> sums(chunk * segments);
  std::vector<T> at_target(chunk);
  T* out = data<T>(stats);
  for (int64_t begin = 0; begin < active; begin += chunk) {
    const int64_t count = std::min(chunk, active - begin), blocks = ceil_div(count, Call::kRows);
    call.pack_rows(head.gather(begin, count, gathered.get<char>()), count, rows.get<T>());
    call.at_targets(begin, count, rows.get<T>(), at_target.data());
    for (int64_t s0 = 0; s0 < segments; s0 += together) {
      const int64_t s1 = std::min(s0 + together, segments);
      parallel_items(s1 - s0, most, [&](int64_t, int64_t s) { call.pack_columns(s0 + s, columns.get<T>(s)); });
      parallel_items((s1 - s0) * blocks, most, [&](int64_t worker, int64_t item) {
        const int64_t s = s0 + item / blocks, r0 = item % blocks * Call::kRows;
        const int64_t here = std::min(Call::kRows, count - r0);
        T* d = tiles.get<T>(worker);
        call.distances(begin, r0, here, rows.get<T>(), s, columns.get<T>(s - s0), d, nullptr);
        for (int64_t i = 0; i < here; ++i) {
          const auto row = call.row_of(begin + r0 + i, s, d + i * kSegment, at_target[r0 + i]);
          call.kernels.sums(call.metric, row, sums[(r0 + i) * segments + s]);
        }
      });
    }
    for (int64_t r = 0; r < count; ++r) {
      Total total;
      for (int64_t s = 0; s < segments; ++s) {
        const auto& part = sums[r * segments + s];
        total.add(part.max, part.sum, part.total);
      }
      const int64_t row = head.rows[begin + r];
      const double lse = total.lse();
      out[row] = T(lse), out[n + row] = T(total.total), out[2 * n + row] = at_target[r];
      out[3 * n + row] = low_part<T>(lse);
    }
  }
  return stats;
}

Tensor elementwise_stats(
    const Tensor& input, const Tensor& linear_weight, const Tensor& target, const std::optional<Tensor>& active,
    const std::optional<Tensor>& row_term, const std::optional<Tensor>& column_term, std::string kind, double p,
    double power, double eps) {
  const ElementwiseArgs args{
      "elementwise_stats", input, linear_weight, target, active, row_term, column_term, kind, p, power, eps};
  return input.scalar_type() == ScalarType::Double ? stats_of<double>(args) : stats_of<float>(args);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lossk, CPU, m) { m.impl("elementwise_stats", TORCH_BOX(&elementwise_stats)); }

}  // namespace lossk
