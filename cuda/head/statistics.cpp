#include "head/statistics.h"

#include "head/columns.h"

namespace lossk::head {
namespace {

// What the sketch is made relative to: an estimate of each row's lse from a thirty-second of the vocabulary. The
// columns that rows pick often hold most of the mass of most rows, and an even sample of the others tells the rest.
Tensor estimated_lse(Operands& x) {
  const int most = round_up(ceil_div(x.v, 64), 2 * kColumnsInSegment), segment = segment_of(most);
  Tensor picked = x.zeros({x.v}, ScalarType::Int), counts = x.scratch({3, ceil_div(x.v, kChunk)}, ScalarType::Int);
  Tensor ids = x.scratch({3, x.v}, ScalarType::Int), count = x.scratch({3}, ScalarType::Int);
  auto* marks = reinterpret_cast<uint32_t*>(data<int>(picked));
  x.run(mark_sample({x.index, x.head, most, marks}, x.device.stream));
  x.run(list_sample({marks, x.v, most, data<int>(counts), {data<int>(ids), data<int>(count)}}, x.device.stream));

  const int parts = x.path.parts * ceil_div(most, segment);
  Tensor partial = x.scratch({3, parts, x.n, 2}, ScalarType::Float), reference = x.scratch({x.n}, ScalarType::Float);
  Tensor unused = x.scratch({x.n, x.k}, ScalarType::Float);
  GatheredColumns columns(x, most, most, x.head.margin != 0 || x.head.distance != Distance::none);
  for (int list = 0; list < 3; ++list) {
    columns.open(data<int>(ids) + int64_t{list} * x.v, data<int>(count) + list, 0, x.n, x.head.rows_there);
    const Head part = columns.part(0);
    x.run(x.path.stats(
        {.product = {x.input(), columns.weight(0), x.d, segment, x.head.rows_there, {}, part.columns_there},
         .head = part,
         .partial = data<float>(partial),
         .picked = data<float>(unused),
         .first_part = list * parts},
        x.type, false, x.device.stream));
  }
  x.run(estimate_lse(
      {reinterpret_cast<const Partial*>(data<float>(partial)), parts, x.path.parts, segment, data<int>(count), x.head,
       data<float>(reference)},
      x.device.stream));
  return reference;
}

Statistics statistics_tensors(const Operands& x, bool full, const Leave& leave) {
  const int64_t n = x.n, k = x.k;
  return {
      .stats = x.zeros(
          {full                                ? 12
           : x.head.distance != Distance::none ? 4
                                               : 3,
           n},
          ScalarType::Float),
      .logits = x.zeros({n, k}, ScalarType::Float),
      .logp = x.zeros({n, k}, ScalarType::Float),
      .argmax = x.zeros({full ? n : 0}, ScalarType::Long),
      .sketch = x.zeros({leave.sketch ? ceil_div<int64_t>(n, kSketchRows) : 0, x.v}, ScalarType::BFloat16),
      .kept = x.scratch({n, kept_line(leave.keep)}, ScalarType::Short),
      .aux_sum = x.zeros({1}, ScalarType::Double)};
}

}  // namespace

Statistics statistics(Operands& x, bool full, Leave leave, bool sums_z) {
  const int64_t n = x.n;
  Statistics out = statistics_tensors(x, full, leave);
  if (full) x.run(sum_aux({x.head.aux, x.v, data<double>(out.aux_sum)}, x.device.stream));
  const int segment = segment_of(x.v), parts = x.path.parts * ceil_div(x.v, segment);
  const int64_t floats = (full ? sizeof(FullState) : sizeof(Partial)) / sizeof(float);
  Tensor partial = x.scratch({parts, n, floats}, ScalarType::Float);
  // Rows without columns have no sketch either.
  const bool sketched = leave.sketch && x.v > 0;
  const bool slopes_wanted = (sketched && !full && x.head.curved()) || sums_z;
  Tensor slopes = x.scratch({slopes_wanted ? parts : 0, n}, ScalarType::Float);
  SketchParams sketch{};
  if (sums_z) sketch.slopes = data<float>(slopes);
  std::optional<Tensor> reference;
  if (sketched) {
    reference = estimated_lse(x);
    sketch = {
        data<float>(*reference), reinterpret_cast<uint16_t*>(out.sketch.data_ptr()), x.v,
        slopes.numel() ? data<float>(slopes) : nullptr};
  }
  const int most = x.most_columns(segment);
  // A part more where those that are kept end inside one.
  Tensor begun = x.zeros({ceil_div(x.v, most) + 1}, ScalarType::Int);
  auto* together = reinterpret_cast<uint32_t*>(data<int>(begun));
  for (int first = 0, count = 0; first < x.v; first += count, ++together) {
    const bool keeps = first < leave.keep;
    count = std::min(most, (keeps ? leave.keep : x.v) - first);
    x.run(
        (sketched ? x.path.sketch
         : keeps  ? x.path.keep_logits
                  : x.path.stats)(
            {.product = {x.input(), x.weight(first, count), x.d, segment, x.head.rows_there, {}, {}, false, together},
             .head = x.part(first, count),
             .partial = partial.data_ptr(),
             .picked = data<float>(out.logits),
             .first_part = x.path.parts * (first / segment),
             .sketch = sketch,
             .kept = {out.kept.data_ptr(), leave.keep, first}},
            x.type, full, x.device.stream));
  }
  x.run(merge_stats(
      {.partial = partial.data_ptr(),
       .parts = parts,
       .head = x.head,
       .index = x.index,
       .aux_sum = data<double>(out.aux_sum),
       .stats = data<float>(out.stats),
       .picked = data<float>(out.logits),
       .logp = data<float>(out.logp),
       .argmax = data<int64_t>(out.argmax),
       .slopes = sketch.slopes,
       .sums_z = sums_z},
      full, x.device.stream));
  if (sketch.sums)
    x.run(scale_sketch(
        {partial.data_ptr(), full, parts, x.path.parts, segment, x.head, data<float>(out.stats), sketch.sums},
        x.device.stream));
  return out;
}

}  // namespace lossk::head
