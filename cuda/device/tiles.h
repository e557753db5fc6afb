// Which block does which tile, for kernels whose blocks stay and take tile after tile.
#pragma once
#include "device/grid.h"

namespace lossk::device {

struct Tile {
  int row, column;
};

// Tiles in bands of `band` rows, down each band's columns: blocks that run together then share rows and columns in L2.
struct TileOrder {
  int rows, columns, band;

  LOSSK_HOST_DEVICE int64_t count() const { return int64_t{rows} * columns; }
  LOSSK_HOST_DEVICE Tile operator[](int64_t i) const {
    const int64_t in_band = int64_t{band} * columns;
    const int first = static_cast<int>(i / in_band) * band;
    const int height = rows - first < band ? rows - first : band;  // the last band may be lower
    const int64_t rest = i % in_band;
    return {first + static_cast<int>(rest % height), static_cast<int>(rest / height)};
  }
};

// for (PersistentTiles tile(order); tile; ++tile) use(*tile). Every block's share is the same to within one tile, or
// every cluster's of `blocks`, which all get the same tiles.
class PersistentTiles {
 public:
  LOSSK_DEVICE explicit PersistentTiles(const TileOrder& order, int blocks = 1)
      : order_(order), i_(blockIdx.x / blocks), step_(gridDim.x / blocks) {}
  LOSSK_DEVICE explicit operator bool() const { return i_ < order_.count(); }
  LOSSK_DEVICE Tile operator*() const { return order_[i_]; }
  // By one thread of each block or cluster, before each of the `parts` of a tile: waits until all have come as far.
  // Blocks that drift apart by more than L2 holds read the same from memory again. `begun`, which was 0, only
  // tells how far they are: where others cannot run yet, this one goes on after some microseconds.
  LOSSK_DEVICE void stay_together(uint32_t* begun, int part, int parts) const {
    constexpr int kTries = 16, kNanoseconds = 100;
    atomic_add(begun, 1u);
    const int64_t first = i_ / step_ * step_, left = order_.count() - first;  // of this round of all
    const int64_t all = first * parts + (left < step_ ? left : step_) * (part + 1);
    for (int i = 0; i < kTries && load_acquire(begun) < all; ++i) backoff(kNanoseconds);
  }
  // After a tile that had fewer parts.
  LOSSK_DEVICE static void leave_out(uint32_t* begun, int parts) { atomic_add(begun, static_cast<uint32_t>(parts)); }
  LOSSK_DEVICE PersistentTiles& operator++() {
    i_ += step_;
    return *this;
  }

 private:
  TileOrder order_;
  int64_t i_;
  int step_;
};

}  // namespace lossk::device
