// The depth of a product in slices: where its tiles are too few to keep all multiprocessors busy, several blocks share
// one, and a kernel adds up what each made of it.
#pragma once
#include "common/math.h"
#include "head/product/matrix.h"

namespace lossk::head {

constexpr int kMostSlices = 16;

struct Depths {
  int begin, end;
  LOSSK_HOST_DEVICE constexpr int steps() const { return ceil_div(end - begin, kDepth); }
};

// Whole steps but for the last; the last slices may be empty.
LOSSK_HOST_DEVICE constexpr Depths depths_of(int depth, int slices, int slice) {
  const int steps = ceil_div(depth, kDepth), each = ceil_div(steps, slices);
  const int first = slice * each < steps ? slice * each : steps, last = first + each < steps ? first + each : steps;
  return {first * kDepth < depth ? first * kDepth : depth, last * kDepth < depth ? last * kDepth : depth};
}

// What a column of the order of tiles stands for.
struct Piece {
  int span, slice;
  Depths depths;
};
template <bool sliced>
LOSSK_DEVICE Piece piece_of(int column, int spans, int depth, int slices) {
  if constexpr (!sliced) return {column, 0, {0, depth}};
  const int slice = column / spans;
  return {column - slice * spans, slice, depths_of(depth, slices, slice)};
}

// How many, of 1, 2, 4 ..., end first by this model, in steps of products: rounds of tiles, and what slices are written
// and read again. For Hopper's multiprocessors whatever the GPU has, so that the bits
// of a gradient do not depend on it.
constexpr int slices_of(int rows, int columns, int depth, int planes) {
  constexpr int kMultiprocessors = 132;
  constexpr int kEpilogue = 8, kTilesOfStep = 12;   // steps of one, tiles written and read by all in one
  const int tile_columns = planes > 1 ? 128 : 256;  // product_wgmma's
  const int64_t tiles = int64_t{ceil_div(rows, 128)} * ceil_div(columns, tile_columns);
  const int64_t steps = ceil_div(depth, kDepth);
  const auto time = [&](int64_t slices) {
    const int64_t rounds = ceil_div(slices * tiles, int64_t{kMultiprocessors});
    const int64_t again = slices > 1 ? kEpilogue + slices * tiles / kTilesOfStep : 0;
    return rounds * (ceil_div(steps, slices) + kEpilogue) + again;
  };
  int best = 1;
  for (int slices = 2; slices <= kMostSlices; slices *= 2)
    if (time(slices) < time(best)) best = slices;
  return best;
}

// What the callers have, at D=4096: d input of a batch of 128 rows, of 1280, of many; the fill's rows.
static_assert(slices_of(128, 4096, 131072, 1) == 8 && slices_of(1280, 4096, 131072, 1) == 4);
static_assert(slices_of(8192, 4096, 4096, 1) == 1 && slices_of(65, 4096, 131072, 1) == 8);
static_assert(slices_of(0, 4096, 131072, 1) == 1 && slices_of(128, 4096, 0, 1) == 1);

}  // namespace lossk::head
