// The operands of a product of the head: out [rows, columns] = a [rows, depth] b [columns, depth]^T.
#pragma once
#include "device/platform.h"

namespace lossk::head {

// Which way an operand is contiguous: along depth, as input and weight are in the logits, or along its rows, as both
// operands of d weight = dlogits^T input are.
enum class Along { depth, rows };

struct Matrix {
  const void* data;  // 16 bits an element, aligned to 16 bytes
  int rows;
  int64_t stride;  // elements from one line to the next, a multiple of 8
};

// Work is cut into tiles of rows times spans of columns; a span's tiles are done in order, by one block.
struct Product {
  Matrix a, b;
  int depth;
  int span;  // a multiple of the tile's columns
};

}  // namespace lossk::head
