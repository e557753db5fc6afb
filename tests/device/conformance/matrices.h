// Where the elements of small matrices are in a warp's registers, as the PTX manual's figures have it.
#pragma once
#include "device/conformance/helpers.h"

namespace lossk::test {

constexpr int kMatrixRows = 64;  // of 16 bytes, twice as many as four 8 x 8 matrices take

// PTX ISA: warp-level-matrix-instructions-ldmatrix. f(matrix, lane, half of the lane's register, row, column).
template <class F>
void for_each_half(int matrices, bool transposed, F f) {
  for (int i = 0; i < matrices; ++i)
    for (int row = 0; row < 8; ++row)
      for (int column = 0; column < 8; ++column) {
        const int across = transposed ? column : row, along = transposed ? row : column;
        f(i, 4 * across + along / 2, along % 2, row, column);
      }
}

// warp-level-matrix-fragment-mma-16816-float, -mma-1688: of a matrix of `per` elements a register.
struct Fragment {
  int lane, index, part;
};
inline Fragment fragment_a(int row, int k, int per) {
  const int half = 4 * per;  // the K of four lanes
  return {row % 8 * 4 + k % half / per, row / 8 + k / half * 2, k % per};
}
inline Fragment fragment_b(int column, int k, int per) {
  const int half = 4 * per;
  return {column * 4 + k % half / per, k / half, k % per};
}
inline Fragment fragment_d(int row, int column) { return {row % 8 * 4 + column / 2, row / 8 * 2 + column % 2, 0}; }

// Bits of one element as they lie in a register, to be or'ed into it.
template <class T>
uint32_t in_register(T x, int part) {
  uint32_t bits = 0;
  memcpy(&bits, &x, sizeof x);
  return bits << 16 * part;
}

}  // namespace lossk::test
