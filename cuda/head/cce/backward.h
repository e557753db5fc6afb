// The three products of the backward, chunk by chunk; Path says with which kernel.
#pragma once
#include "head/cce/dlogits.cuh"
#include "head/cce/params.h"
#include "head/product/launch.h"

namespace lossk::head {

[[nodiscard]] inline bool valid(const CceBackwardParams& p, Element type) {
  return element_bytes(type) == 2 && p.n >= 0 && p.v >= 0 && p.d >= 0 && p.d % 8 == 0 && p.chunk > 0 &&
         p.chunk % 8 == 0 && p.v <= INT_MAX - p.chunk && (p.input_sum || p.v <= p.chunk);
}

template <class Path, class T>
[[nodiscard]] cudaError_t cce_backward_in_chunks(const CceBackwardParams& p, cudaStream_t stream) {
  constexpr int kSpan = 256;  // a multiple of every path's columns
  int v = 0;
  do {  // once also where there is no vocabulary: d input is 0 then
    const int columns = p.v - v < p.chunk ? p.v - v : p.chunk, stride = round_up(columns, 8);
    const void* weight = static_cast<const uint16_t*>(p.weight) + int64_t{v} * p.d;
    const DlogitsParams dlogits{p.target, p.lse, p.coef, p.dlogits, p.n, columns, v, stride};
    auto error = Path::template multiply<T, Along::depth, Along::depth, DlogitsEpilogue>(
        {{p.input, p.n, p.d}, {weight, columns, p.d}, p.d, kSpan}, dlogits, stream);
    if (error == cudaSuccess && p.grad_weight) {
      void* rows = static_cast<uint16_t*>(p.grad_weight) + int64_t{v} * p.d;
      error = Path::template multiply<T, Along::rows, Along::rows, StoreEpilogue>(
          {{p.dlogits, columns, stride}, {p.input, p.d, p.d}, p.n, kSpan}, {rows, nullptr, columns, p.d, true, true},
          stream);
    }
    if (error == cudaSuccess && p.grad_input)
      error = Path::template multiply<T, Along::depth, Along::rows, StoreEpilogue>(
          {{p.dlogits, p.n, stride}, {weight, p.d, p.d}, columns, kSpan},
          {p.grad_input, p.input_sum, p.n, p.d, v == 0, v + columns == p.v}, stream);
    if (error != cudaSuccess) return error;
    v += columns;
  } while (v < p.v);
  return cudaSuccess;
}

}  // namespace lossk::head
