#include "device/launch.h"
#include "head/live/columns.cuh"
#include "head/live/fill.cuh"
#include "head/live/lists.cuh"

namespace lossk::head {
namespace {

cudaError_t launch_lists(
    const auto& p, int lists, int v, int shared, cudaStream_t stream, auto* count_kernel, auto* write_kernel) {
  const dim3 grid(ceil_div(v, kChunk), lists);
  if (grid.x == 0 || grid.y == 0) return cudaSuccess;
  if (const auto error = launch(count_kernel, {grid, kListThreads, shared, stream}, p); error != cudaSuccess)
    return error;
  return launch(write_kernel, {grid, kListThreads, shared, stream}, p);
}

// The one of three kernels for a type.
auto* kernel_of(Element type, auto* bf16, auto* fp16, auto* fp32) {
  return type == Element::fp16 ? fp16 : type == Element::fp32 ? fp32 : bf16;
}
#define LOSSK_KERNEL_OF(type, kernel) kernel_of(type, kernel<Bf16>, kernel<Fp16>, kernel<float>)

}  // namespace

cudaError_t mark_picks(const MarkParams& p, cudaStream_t stream) {
  const int64_t blocks = ceil_div(int64_t{p.head.rows} * p.head.picks.count, int64_t{kListThreads});
  if (blocks == 0) return cudaSuccess;
  if (blocks > INT_MAX) return cudaErrorInvalidValue;
  return launch(mark_rows, {static_cast<int>(blocks), kListThreads, 0, stream}, p);
}

cudaError_t mark_sample(const SampleParams& p, cudaStream_t stream) {
  if (p.most == 0 || p.head.picks.count == 0 || p.head.rows == 0) return cudaSuccess;
  return launch(mark_some, {ceil_div(p.most, kListThreads), kListThreads, 0, stream}, p);
}

cudaError_t list_sample(const SampleListParams& p, cudaStream_t stream) {
  return launch_lists(p, 3, p.v, sizeof(ListShared), stream, count_sample, write_sample);
}

cudaError_t find_general(const GeneralParams& p, cudaStream_t stream) {
  if (p.head.rows == 0) return cudaSuccess;
  return launch(any_general, {ceil_div(p.head.rows, kListThreads), kListThreads, 0, stream}, p);
}

cudaError_t list_live(const LiveListParams& p, cudaStream_t stream) {
  const int lists = ceil_div(p.head.rows, kListRows), blocks = ceil_div(p.head.rows, kSketchRows);
  if (lists > 65535) return cudaErrorInvalidValue;
  const auto error = launch_lists(p, lists, p.head.columns, sizeof(ListShared), stream, count_live, write_live);
  if (error != cudaSuccess || blocks == 0 || p.head.columns == 0) return error;
  return launch(sum_chunks, {ceil_div(blocks, kListThreads), kListThreads, 0, stream}, p);
}

cudaError_t split_dense(const DenseRowsParams& p, cudaStream_t stream) {
  if (p.head.rows == 0) return cudaSuccess;
  return launch(split_rows, {ceil_div(p.head.rows, kListThreads), kListThreads, 0, stream}, p);
}

cudaError_t find_first_lists(const LiveListParams& p, int* first, cudaStream_t stream) {
  if (p.head.columns == 0) return cudaSuccess;
  return launch(first_lists, {ceil_div(p.head.columns, kListThreads), kListThreads, 0, stream}, p, first);
}

cudaError_t gather_columns(const ColumnParams& p, cudaStream_t stream) {
  if (p.most == 0) return cudaSuccess;
  return launch(gather_floats, {ceil_div(p.most, kColumnThreads), kColumnThreads, 0, stream}, p);
}

cudaError_t map_picks(const MapPicksParams& p, cudaStream_t stream) {
  if (p.head.rows == 0) return cudaSuccess;
  return launch(map_row_picks, {ceil_div(p.head.rows, kColumnThreads), kColumnThreads, 0, stream}, p);
}

cudaError_t add_live_sums(const AddLiveSumsParams& p, cudaStream_t stream) {
  if (p.rows == 0) return cudaSuccess;
  return launch(add_live_rows, {ceil_div(p.rows, kFillThreads), kFillThreads, 0, stream}, p);
}

cudaError_t find_terms(const TermParams& p, Element type, cudaStream_t stream) {
  if (p.blocks == 0) return cudaSuccess;
  constexpr int kBytes = sizeof(float) * kUnitThreads / kWarp;
  const int slices = ceil_div(p.d < 1 ? 1 : p.d, kFillThreads);
  const int64_t elements = int64_t{p.terms} * p.padded;
  if (slices > 65535 || elements > int64_t{INT_MAX} * kFillThreads) return cudaErrorInvalidValue;
  const auto then = [&](cudaError_t before, auto* kernel, const Launch& l) {
    return before != cudaSuccess ? before : launch(kernel, l, p);
  };
  auto error = then(cudaSuccess, missing_of_rows, {ceil_div(p.head.rows, kFillThreads), kFillThreads, 0, stream});
  if (p.terms == 0) return error;
  const dim3 grid(p.blocks, slices);
  error = then(error, LOSSK_KERNEL_OF(type, sums_of_blocks), {grid, kFillThreads, 0, stream});
  if (p.terms > p.blocks) error = then(error, dense_of_blocks, {slices, kFillThreads, 0, stream});
  error = then(error, LOSSK_KERNEL_OF(type, units_of_terms), {1, kUnitThreads, kBytes, stream});
  if (elements == 0) return error;
  const int blocks = static_cast<int>(ceil_div(elements, int64_t{kFillThreads}));
  return then(error, LOSSK_KERNEL_OF(type, round_terms), {blocks, kFillThreads, 0, stream});
}

cudaError_t find_q(const QParams& p, Element type, cudaStream_t stream) {
  if (p.stride == 0) return cudaSuccess;
  return launch(LOSSK_KERNEL_OF(type, q_of_columns), {ceil_div(p.stride, kFillThreads), kFillThreads, 0, stream}, p);
}

cudaError_t finish(const FinishParams& p, Element type, cudaStream_t stream) {
  if (p.t.head.rows == 0) return cudaSuccess;
  constexpr int kBytes = sizeof(float) * kFillThreads / kWarp;
  return launch(LOSSK_KERNEL_OF(type, finish_rows), {p.t.head.rows, kFillThreads, kBytes, stream}, p);
}

cudaError_t sum_dense_bias(const Head& head, double* sum, cudaStream_t stream) {
  return launch(bias_of_dense, {1, kUnitThreads, sizeof(SumShared<kUnitThreads>), stream}, head, sum);
}

cudaError_t report(const ReportParams& p, cudaStream_t stream) {
  if (p.t.blocks == 0) return cudaSuccess;
  return launch(report_blocks, {p.t.blocks, kSketchRows, sizeof(float) * kSketchRows / kWarp, stream}, p);
}

}  // namespace lossk::head
