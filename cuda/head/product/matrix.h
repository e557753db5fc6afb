// The operands of a product of the head: out [rows, columns] = a [rows, depth] b [columns, depth]^T.
#pragma once
#include "head/head.h"

namespace lossk::head {

// Which way an operand is contiguous: along depth, as input and weight are in the logits, or along its rows, as both
// operands of d weight = dlogits^T input are.
enum class Along { depth, rows };

// How a T is multiplied. bf16 and fp16 as they are. A float32 as the sum of three bf16, each of 8 of its 24 bits, in
// planes one after the other; of the nine products of planes the six that float32 can tell from 0, the smallest first.
// Where 3xTF32 takes three products at half the rate, this takes six at the full one and loses no bit of an operand.
template <class T>
struct Planes {
  using Element = T;
  static constexpr int planes = 1, terms = 1;
};
template <>
struct Planes<float> {
  using Element = device::Bf16;
  static constexpr int planes = 3, terms = 6;
};
template <class T>
LOSSK_HOST_DEVICE constexpr int plane_of_a(int term) {
  return Planes<T>::planes == 1 ? 0 : 0x001102 >> 4 * term & 15;
}
template <class T>
LOSSK_HOST_DEVICE constexpr int plane_of_b(int term) {
  return Planes<T>::planes == 1 ? 0 : 0x010120 >> 4 * term & 15;
}

constexpr int kDepth = 64;  // of a tile: a step of the kernels

struct Matrix {
  const void* data;  // 16 bits an element, aligned to 16 bytes
  int rows;
  int64_t stride;  // elements from one line to the next, a multiple of 8
  int64_t plane;   // and from one plane to the next; not looked at where there is one
};

// Work is cut into tiles of rows times spans of columns; a span's tiles are done in order, by one block.
struct Product {
  Matrix a, b;
  int depth;
  int span;                      // a multiple of the tile's columns
  Count rows_there = {};         // of a's
  Count depth_there = {};        // what an operand has beyond, up to the next 64, is finite
  Count columns_there = {};      // of b's rows
  bool only_with_depth = false;  // nothing is done where there is no depth, not sums of 0
  uint32_t* begun = nullptr;     // 0: blocks stay together (PersistentTiles); null: each goes on as it can
  int slices = 1;                // of the depth (slices.h), for an epilogue that keeps them apart
};

}  // namespace lossk::head
