// Which block does which tile, for kernels whose blocks stay and take tile after tile.
#pragma once
#include "device/platform.h"

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
