// Distances of 64 rows and 64 columns by a block, 16 of them in each thread's registers.
#pragma once
#include "device/barrier.h"
#include "device/reduce.h"
#include "head/elementwise/cores.cuh"

namespace lossk::head {

constexpr int kPairThreads = 256, kTile = 64, kSide = 4;  // kSide x kSide pairs of a thread
constexpr int kAcross = kTile / kSide;                    // threads of a row, half a warp

// Features of a step, and of a chain: their sums are added up apart. One chain of all would round more than torch does,
// and the exponent multiplies that.
constexpr int kChain = 64;
constexpr int kPitch = kTile + 4;  // of a feature's points: what a warp stores lies in 32 banks, quads are aligned

struct alignas(16) Quad {
  float x[4];
};

struct PairsShared {
  float x[kChain * kPitch], w[kChain * kPitch];
};

LOSSK_DEVICE float element(const Points& p, Element type, int64_t i) {
  if (type == Element::fp32) return static_cast<const float*>(p.data)[i];
  const uint32_t bits = static_cast<const uint16_t*>(p.data)[i];
  return type == Element::bf16 ? widen_bf16(bits) : widen_fp16(bits);
}

// What a thread loads of a tile's points: every eighth feature of two of them.
struct Share {
  static constexpr int lanes = 8, points = kPairThreads / lanes;
  int64_t at[kTile / points];  // elements, -1: zeros

  // place(i): of the tile's point i, -1 for none.
  template <class Place>
  LOSSK_DEVICE Share(int64_t stride, const Place& place) {
#pragma unroll
    for (int i = 0; i < kTile / points; ++i) {
      const int64_t point = place(static_cast<int>(threadIdx.x) / lanes + i * points);
      at[i] = point < 0 ? -1 : point * stride;
    }
  }
  LOSSK_DEVICE void load(const Points& p, Element type, int first, int d, float* to) const {
#pragma unroll
    for (int i = 0; i < kTile / points; ++i)
#pragma unroll 4
      for (int k = static_cast<int>(threadIdx.x) % lanes; k < kChain; k += lanes) {
        const bool there = at[i] >= 0 && first + k < d;
        to[k * kPitch + threadIdx.x / lanes + i * points] = there ? element(p, type, at[i] + first + k) : 0;
      }
  }
};

template <class C>
struct TileSums {
  float of[kSide][kSide][C::sums] = {};
};

// Row 4 (thread / 16) + i of the tile and column 4 (thread % 16) + j are pair [i][j].
template <class C>
class PairsTile {
 public:
  // Of rows first .. there, at most 64.
  LOSSK_DEVICE PairsTile(const Pairs& p, PairsShared& shared, int first, int there)
      : p_(p),
        shared_(shared),
        rows_(p.x.stride, [&](int i) { return first + i < there ? p.head.id(first + i) : int64_t{-1}; }),
        core_{{p.metric.p}},
        idle_(first + static_cast<int>(threadIdx.x) / kAcross * kSide >= there) {}

  // By all threads. `second`: the other number that C keeps of a pair.
  LOSSK_DEVICE void distances(const Share& columns, float (&d)[kSide][kSide], float (&second)[kSide][kSide]) {
    float largest[kSide][kSide] = {};
    if constexpr (C::from_largest) {
      TileSums<Chebyshev> found;
      walk(Chebyshev{}, columns, largest, found);
#pragma unroll
      for (int i = 0; i < kSide * kSide; ++i) largest[i / kSide][i % kSide] = found.of[i / kSide][i % kSide][0];
    }
    TileSums<C> total;
    walk(core_, columns, largest, total);
#pragma unroll
    for (int i = 0; i < kSide; ++i)
#pragma unroll
      for (int j = 0; j < kSide; ++j) {
        d[i][j] = core_.distance(total.of[i][j], largest[i][j]);
        second[i][j] = core_.second(total.of[i][j]);
      }
  }
  LOSSK_DEVICE const C& core() const { return core_; }

 private:
  template <class D>
  LOSSK_DEVICE void walk(
      const D& core, const Share& columns, const float (&largest)[kSide][kSide], TileSums<D>& total) {
    const float* x = shared_.x + threadIdx.x / kAcross * kSide;
    const float* w = shared_.w + threadIdx.x % kAcross * kSide;
    for (int first = 0; first < p_.d; first += kChain) {
      sync_block();  // the step before is read
      rows_.load(p_.x, p_.type, first, p_.d, shared_.x);
      columns.load(p_.w, p_.type, first, p_.d, shared_.w);
      sync_block();  // and this one written
      const int steps = idle_ ? 0 : min(kChain, p_.d - first);
      TileSums<D> sum;
#pragma unroll(D::light ? 4 : 1)
      for (int k = 0; k < steps; ++k) {
        const Quad xs = *reinterpret_cast<const Quad*>(x + k * kPitch);
        const Quad ws = *reinterpret_cast<const Quad*>(w + k * kPitch);
        const auto place = static_cast<float>(first + k + 1);
#pragma unroll
        for (int i = 0; i < kSide; ++i)
#pragma unroll
          for (int j = 0; j < kSide; ++j) core.add(sum.of[i][j], xs.x[i], ws.x[j], largest[i][j], place);
      }
#pragma unroll
      for (int i = 0; i < kSide; ++i)
#pragma unroll
        for (int j = 0; j < kSide; ++j) core.join(total.of[i][j], sum.of[i][j]);
    }
  }

  const Pairs& p_;
  PairsShared& shared_;
  const Share rows_;
  const C core_;
  const bool idle_;
};

// S of Bray-Curtis and its slope by row_term + column_term.
LOSSK_DEVICE float denominator(const Metric<float>& m, float sum, float& slope) {
  slope = 1;
  if (m.kind == ElementDistance::bray_curtis) return sum;
  const float size = fabsf(sum) + m.p, least = 10 * m.p;
  slope = size >= least ? toward(sum, slope) : 0;
  return size < least ? least : size;
}

LOSSK_DEVICE float square(const Metric<float>& m, float d) { return multiply_add(d, d, m.eps); }
LOSSK_DEVICE float harmonic(const Metric<float>& m, float square, float at_target) {
  return -m.power * logf(square / at_target);
}

// Columns of the vocabulary that lie in a part, counted from its first; -1 for others.
LOSSK_DEVICE int among(int64_t column, int first, int count) {
  return column >= first && column < int64_t{first} + count ? static_cast<int>(column - first) : -1;
}

}  // namespace lossk::head
