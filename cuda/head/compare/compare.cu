#include "device/launch.h"
#include "head/compare/dlogits.cuh"

namespace lossk::head {
namespace {

bool valid(const Compared& c, bool with_lse) {
  const Head &z = c.z.head, &u = c.u.head;
  const bool two = of_two_heads(c.kind);
  const auto fine = [&](const Side& s) {
    return s.raw && reinterpret_cast<uintptr_t>(s.raw) % 16 == 0 && (!with_lse || !of_probabilities(c.kind) || s.lse);
  };
  return c.stride % 4 == 0 && c.stride >= z.columns && fine(c.z) && (two || c.offset) &&
         (!two || (fine(c.u) && u.columns == z.columns && u.rows == z.rows && u.first_row == z.first_row));
}

Launch lines(const Head& head, int across, cudaStream_t stream) {
  return {dim3(ceil_div(head.rows, kLines), across), kLineThreads, 0, stream};
}

constexpr int kMostAcross = 65535;  // blocks along a grid's y

}  // namespace

cudaError_t compare_sums(const CompareSumsParams& p, cudaStream_t stream) {
  const Head& head = p.of.z.head;
  if (head.rows == 0 || head.columns == 0) return cudaSuccess;
  const Compared& c = p.of;
  if (!valid(c, !in_one_pass(c.kind)) || !p.partial || p.segment <= 0 || p.segment % 4 || head.first % p.segment)
    return cudaErrorInvalidValue;
  const int segments = ceil_div(head.columns, p.segment);
  if (segments > kMostAcross) return cudaErrorInvalidValue;
  return launch(in_one_pass(c.kind) ? sums_in_one_pass : sums_of_terms, lines(head, segments, stream), p);
}

cudaError_t merge_compared(const CompareMergeParams& p, cudaStream_t stream) {
  if (p.head.rows == 0) return cudaSuccess;
  if (in_one_pass(p.kind) && !p.lse) return cudaErrorInvalidValue;
  return launch(merge_rows_compared, {ceil_div(p.head.rows, kLineThreads), kLineThreads, 0, stream}, p);
}

cudaError_t compare_dlogits(const CompareDlogitsParams& p, cudaStream_t stream) {
  const Head& head = p.of.z.head;
  if (head.rows == 0 || head.columns == 0) return cudaSuccess;
  const int spans = ceil_div(head.columns, kCompareSpan);
  const auto fine = [](const SideDlogits& s) {
    return reinterpret_cast<uintptr_t>(s.out) % 16 == 0 && (!s.out || (s.type == Element::fp16) == (s.unit != nullptr));
  };
  if (!valid(p.of, true) || !fine(p.z) || !fine(p.u) || p.stride % 8 || p.stride < head.columns ||
      head.first_row % 64 || !p.coef || spans > kMostAcross || (of_two_heads(p.of.kind) ? !p.sums : p.u.out != nullptr))
    return cudaErrorInvalidValue;
  return launch(dlogits_of_compared, lines(head, spans, stream), p);
}

cudaError_t compare_bounds(const CompareBoundsParams& p, cudaStream_t stream) {
  if (p.n == 0) return cudaSuccess;
  if (!(of_two_heads(p.kind) ? p.sums : p.offset)) return cudaErrorInvalidValue;
  return launch(bounds_of_compared, {ceil_div(p.n, kLineThreads), kLineThreads, 0, stream}, p);
}

}  // namespace lossk::head
