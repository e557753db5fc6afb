#include "common/math.h"
#include "device/launch.h"
#include "head/elementwise/coefs.cuh"
#include "head/elementwise/slopes.cuh"
#include "head/elementwise/sums.cuh"

namespace lossk::head {
namespace {

constexpr int kMostAcross = 65535;  // blocks along a grid's y

bool valid(const Pairs& p) {
  const auto fine = [&](const Points& x) { return p.d == 0 || (x.data && x.stride >= 0); };
  const bool divided = is_divided(p.metric.kind);
  return fine(p.x) && fine(p.w) && p.d >= 0 && p.target && divided == (p.row_term != nullptr) &&
         divided == (p.column_term != nullptr) && p.head.first + int64_t{p.head.columns} <= p.v &&
         p.type != Element::tf32;
}
bool valid(const float* e, int64_t stride, const Head& head) {
  return stride % kTile == 0 && stride >= head.columns && reinterpret_cast<uintptr_t>(e) % sizeof(Quad) == 0;
}

Launch threads_for(int64_t count, cudaStream_t stream) {
  return {static_cast<int>(ceil_div<int64_t>(count, kPairThreads)), kPairThreads, 0, stream};
}

}  // namespace

bool has_two_numbers(const Metric<float>& m) {
  bool two = false;
  with_core<true>(m, [&]<class C>() { two = C::two; });
  return two;
}

cudaError_t harmonic_sums(const HarmonicSumsParams& p, cudaStream_t stream) {
  const Head& head = p.of.head;
  if (head.rows == 0 || (p.partial && head.columns == 0)) return cudaSuccess;
  const bool whole = head.first == 0 && head.columns == p.of.v;
  if (!valid(p.of) || !p.at_target || !whole || (p.partial && (p.segment <= 0 || p.segment % kTile)))
    return cudaErrorInvalidValue;
  const int segments = p.partial ? ceil_div(head.columns, p.segment) : 1;
  if (segments > kMostAcross) return cudaErrorInvalidValue;
  const Launch l{dim3(ceil_div(head.rows, kTile), segments), kPairThreads, sizeof(PairsShared), stream};
  return with_core<false>(p.of.metric, [&]<class C>() { return launch(sums_of_pairs<C>, l, p); });
}

cudaError_t merge_harmonic(const HarmonicMergeParams& p, cudaStream_t stream) {
  if (p.head.rows == 0) return cudaSuccess;
  if (!p.stats || (p.segments > 0 && !p.partial)) return cudaErrorInvalidValue;
  return launch(merge_rows_harmonic, threads_for(p.head.rows, stream), p);
}

cudaError_t harmonic_rows(const HarmonicRowsParams& p, cudaStream_t stream) {
  if (p.head.rows == 0) return cudaSuccess;
  if (!p.stats || !p.row_coef || !p.rows) return cudaErrorInvalidValue;
  return launch(facts_of_rows, threads_for(p.head.rows, stream), p);
}

cudaError_t pair_coefs(const PairCoefsParams& p, cudaStream_t stream) {
  const Head& head = p.of.head;
  if (head.rows == 0 || head.columns == 0) return cudaSuccess;
  const int across = ceil_div(head.columns, kTile);
  if (!valid(p.of) || !p.rows || !p.a || !valid(p.a, p.stride, head) || !valid(p.e, p.stride, head) ||
      (has_two_numbers(p.of.metric) && !p.e) || across > kMostAcross)
    return cudaErrorInvalidValue;
  const Launch l{dim3(ceil_div(head.rows, kTile), across), kPairThreads, sizeof(PairsShared), stream};
  return with_core<true>(p.of.metric, [&]<class C>() { return launch(coefs_of_pairs<C>, l, p); });
}

cudaError_t pair_slopes(const PairSlopesParams& p, cudaStream_t stream) {
  const Head& head = p.of.head;
  const int owns = p.of_rows ? head.rows : head.columns;
  if (owns == 0 || p.of.d == 0) return cudaSuccess;
  if (!valid(p.of) || !p.a || !valid(p.a, p.stride, head) || (has_two_numbers(p.of.metric) && !p.e) ||
      (!(p.first && p.last) && !p.sum) || (p.last && !p.out))
    return cudaErrorInvalidValue;
  const dim3 blocks(ceil_div(owns, kOwn), min(kMostAcross, ceil_div(p.of.d, kFeatures)));
  return with_core<true>(p.of.metric, [&]<class C>() {
    return launch(slopes_of_pairs<C>, {blocks, kPairThreads, sizeof(SlopesShared<C::two>), stream}, p);
  });
}

cudaError_t term_sums(const TermSumsParams& p, cudaStream_t stream) {
  if (p.head.rows == 0 || p.head.columns == 0) return cudaSuccess;
  if (!p.e || !valid(p.e, p.stride, p.head)) return cudaErrorInvalidValue;
  if (p.rows) {
    const auto error = launch(row_terms_of_pairs, threads_for(int64_t{p.head.rows} * kWarp, stream), p);
    if (error != cudaSuccess) return error;
  }
  if (!p.columns) return cudaSuccess;
  return launch(
      column_terms_of_pairs,
      {ceil_div(p.head.columns, kWarp), kPairThreads, static_cast<int>(sizeof(TermShared)), stream}, p);
}

}  // namespace lossk::head
