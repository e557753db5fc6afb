// Operand tiles of wgmma as they lie in shared memory, restated from the PTX manual.
#pragma once
#include "device/conformance/matrices.h"
#include "device/wgmma.h"

namespace lossk::test {

constexpr int kDepth = 64;  // K of the tests' tiles: four products

// PTX ISA: asynchronous-warpgroup-level-matrix-shared-memory-layout. Distances in bytes.
struct TileLayout {
  Swizzle swizzle;
  bool transposed;
  int inner, outer, panel;  // panel: from what fills the swizzle's width along K to the next
  int bytes;

  // Of element (row along M or N, k).
  int place(int row, int k) const {
    const int width = kWidths[static_cast<int>(swizzle)];
    int dense;
    if (transposed) dense = row / 64 * inner + k / 8 * outer + k % 8 * 128 + row % 64 * 2;
    else if (swizzle == Swizzle::none) dense = row / 8 * outer + k / 8 * inner + row % 8 * 16 + k % 8 * 2;
    else dense = 2 * k / width * panel + row / 8 * outer + row % 8 * width + 2 * k % width;
    return static_cast<int>(place_under(swizzle, dense));
  }
  // Where the descriptor of the 16 from k on points to.
  int start(int k) const {
    if (transposed) return k / 8 * outer;
    if (swizzle == Swizzle::none) return k / 8 * inner;
    const int width = kWidths[static_cast<int>(swizzle)];
    return 2 * k / width * panel + 2 * k % width;
  }
};

// Rows along K. `apart`: what lies `outer` apart is not dense (under a swizzle), or K's neighbours lie closer than
// rows (without).
inline TileLayout k_major(Swizzle s, int rows, bool apart) {
  const int width = kWidths[static_cast<int>(s)];
  if (s == Swizzle::none) {
    const int inner = apart ? 128 : rows * 16 + 32, outer = apart ? kDepth * 16 + 48 : 128;
    return {s, false, inner, outer, 0, (apart ? rows / 8 * outer : kDepth / 8 * inner)};
  }
  const int outer = (apart ? 16 : 8) * width, panel = rows / 8 * outer;
  return {s, false, 16, outer, panel, kDepth * 2 / width * panel};
}

// Rows along M or N, under the 128-byte swizzle: pieces of 64 by 8 k, those along K or those along M nearer.
inline TileLayout m_major(int rows, bool apart) {
  const int along = (rows + 63) / 64, pieces = along * (kDepth / 8);
  if (apart) return {Swizzle::bytes128, true, 1024, along * 1024, 0, pieces * 1024};
  return {Swizzle::bytes128, true, kDepth / 8 * 1024, 1024, 0, pieces * 1024};
}

// The tile `x`, [rows, kDepth], as words of shared memory.
template <class T>
std::vector<uint32_t> in_shared(const TileLayout& l, const std::vector<T>& x) {
  std::vector<uint32_t> words(l.bytes / 4, 0xffffffff);  // nan where nothing lies
  for (size_t i = 0; i < x.size(); ++i)
    memcpy(
        reinterpret_cast<char*>(words.data()) + l.place(static_cast<int>(i) / kDepth, static_cast<int>(i) % kDepth),
        &x[i], 2);
  return words;
}

// What a kernel needs to know of it.
struct TileWords {
  const uint32_t* from;
  int words, step[kDepth / 16];
  uint32_t inner, outer;
  Swizzle swizzle;
};
inline TileWords tile_words(const TileLayout& l, const uint32_t* from) {
  TileWords t{from, l.bytes / 4, {}, static_cast<uint32_t>(l.inner), static_cast<uint32_t>(l.outer), l.swizzle};
  for (int i = 0; i < kDepth / 16; ++i) t.step[i] = l.start(16 * i);
  return t;
}

LOSSK_DEVICE void fill_tile(unsigned char* to, const TileWords& t) {
  for (int i = threadIdx.x; i < t.words; i += kWarpgroup) reinterpret_cast<uint32_t*>(to)[i] = t.from[i];
}
LOSSK_DEVICE uint64_t descriptor(const TileWords& t, const unsigned char* tile, int step) {
  return matrix_descriptor(shared_address(tile) + t.step[step], t.inner, t.outer, t.swizzle);
}

// a in registers: for each step and thread the four that an mma of the warp's 16 rows takes.
template <class T>
std::vector<uint32_t> in_registers(const std::vector<T>& a) {
  std::vector<uint32_t> words(kDepth / 16 * kWarpgroup * 4);
  for (int row = 0; row < 64; ++row)
    for (int k = 0; k < kDepth; ++k) {
      const Fragment f = fragment_a(row % 16, k % 16, 2);
      words[(k / 16 * kWarpgroup + row / 16 * kWarp + f.lane) * 4 + f.index] |=
          in_register(a[row * kDepth + k], f.part);
    }
  return words;
}

// asynchronous-warpgroup-level-matrix-register-fragment: the accumulator of thread t and index i.
struct Accumulator {
  int row, column;
};
inline Accumulator accumulator(int thread, int i) {
  return {thread / 32 * 16 + thread % 32 / 4 + i / 2 % 2 * 8, i / 4 * 8 + thread % 4 * 2 + i % 2};
}

// Each accumulator of d (+)= a b^T, [128 threads, n / 2], with the first `steps` products.
template <class T>
std::vector<float> product(
    const std::vector<T>& a, const std::vector<T>& b, int n, int steps, const std::vector<float>& before) {
  std::vector<float> d(before);
  const auto x = to_floats(a), y = to_floats(b);
  for (int thread = 0; thread < kWarpgroup; ++thread)
    for (int i = 0; i < n / 2; ++i) {
      const Accumulator at = accumulator(thread, i);
      float& sum = d[thread * (n / 2) + i];
      for (int k = 0; k < 16 * steps; ++k) sum += x[at.row * kDepth + k] * y[at.column * kDepth + k];
    }
  return d;
}

}  // namespace lossk::test
