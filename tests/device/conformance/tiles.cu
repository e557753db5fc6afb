// cuda/device/tiles.h
#include "device/tiles.h"

#include "device/conformance/helpers.h"
#include "device/grid.h"

namespace lossk::test {
namespace {

// Band after band, in each column after column, down each column.
std::vector<Tile> in_order(const TileOrder& o) {
  std::vector<Tile> tiles;
  for (int first = 0; first < o.rows; first += o.band)
    for (int column = 0; column < o.columns; ++column)
      for (int row = first; row < first + o.band && row < o.rows; ++row) tiles.push_back({row, column});
  return tiles;
}
std::vector<TileOrder> orders() {
  std::vector<TileOrder> all{{1, 1, 1}, {1, 9, 4}, {9, 1, 4}, {8, 5, 4}, {5, 3, 8}, {6, 4, 1}, {0, 3, 2}, {3, 0, 2}};
  for (int i = 0; i < 4; ++i) all.push_back({random_integer(1, 20), random_integer(1, 20), random_integer(1, 9)});
  return all;
}
std::string name(const TileOrder& o) {
  return std::to_string(o.rows) + " x " + std::to_string(o.columns) + " in bands of " + std::to_string(o.band);
}

struct At {
  TileOrder order;
  int64_t i;
};
struct TileAt {
  LOSSK_HOST_DEVICE Tile operator()(At at) const { return at.order[at.i]; }
};
struct Count {
  LOSSK_HOST_DEVICE int64_t operator()(TileOrder o) const { return o.count(); }
};
LOSSK_TEST(TileOrder) {
  std::vector<At> places;
  std::vector<Tile> want;
  for (const TileOrder& o : orders()) {
    const auto tiles = in_order(o);
    expect(o.count() == static_cast<int64_t>(tiles.size()), "count of " + name(o));
    for (size_t i = 0; i < tiles.size(); ++i) places.push_back({o, static_cast<int64_t>(i)});
    want.insert(want.end(), tiles.begin(), tiles.end());
  }
  // More tiles than 32 bits count: the first, the last, and the first of the last band, which is lower.
  const TileOrder large{100003, 60001, 16};
  const int64_t bands = 100003 / 16, last_band = bands * 16 * 60001;
  for (const auto& [i, tile] : std::vector<std::pair<int64_t, Tile>>{
           {0, {0, 0}},
           {17, {1, 1}},
           {last_band - 1, {99999, 60000}},
           {last_band, {100000, 0}},
           {last_band + 4, {100001, 1}},
           {large.count() - 1, {100002, 60000}}}) {
    places.push_back({large, i});
    want.push_back(tile);
  }
  const auto got = on_threads<TileAt, Tile>(places);
  for (size_t i = 0; i < want.size(); ++i)
    for (const Tile& tile : {got[i], TileAt()(places[i])})
      expect(
          tile.row == want[i].row && tile.column == want[i].column,
          "tile " + std::to_string(places[i].i) + " of " + name(places[i].order));
  expect_equal(on_threads<Count, int64_t>(std::vector<TileOrder>{large}), {int64_t{100003} * 60001});
}

// Each block writes down which tile it did as its how-manieth.
__global__ void take_tiles(TileOrder order, int* block, int* turn, uint32_t* times) {
  int i = 0;
  for (PersistentTiles tile(order); tile; ++tile, ++i) {
    const Tile t = *tile;
    const int at = t.row * order.columns + t.column;
    block[at] = blockIdx.x;
    turn[at] = i;
    atomic_add(&times[at], 1u);
  }
}
LOSSK_TEST(PersistentTiles) {
  for (const TileOrder& o : orders())
    for (const int blocks : {1, 3, 132}) {
      const auto tiles = in_order(o);
      Buffer<int> block(tiles.size() + 1), turn(tiles.size() + 1);
      Buffer<uint32_t> times(std::vector<uint32_t>(tiles.size() + 1, 0));
      run(take_tiles, blocks_of(blocks, 1), o, block.data(), turn.data(), times.data());
      const auto blocks_got = block.values(), turns_got = turn.values();
      const auto times_got = times.values();
      for (size_t i = 0; i < tiles.size(); ++i) {
        const int at = tiles[i].row * o.columns + tiles[i].column, number = static_cast<int>(i);
        expect(
            times_got[at] == 1 && blocks_got[at] == number % blocks && turns_got[at] == number / blocks,
            "tile " + std::to_string(i) + " of " + name(o) + " by " + std::to_string(blocks) + " blocks");
      }
    }
}

// Every tile is done and counted once, whether the others can run at the same time or not.
__global__ void take_tiles_together(TileOrder order, uint32_t* begun, uint32_t* times) {
  constexpr int kParts = 3;
  for (PersistentTiles tile(order); tile; ++tile) {
    for (int part = 0; part < kParts - 1; ++part) tile.stay_together(begun, part, kParts);
    tile.leave_out(begun, 1);
    atomic_add(&times[(*tile).row * order.columns + (*tile).column], 1u);
  }
}
LOSSK_TEST(stay_together) {
  for (const TileOrder& o : orders())
    for (const int blocks : {1, 3, 132}) {
      const size_t count = in_order(o).size();
      Buffer<uint32_t> begun(std::vector<uint32_t>{0}), times(std::vector<uint32_t>(count + 1, 0));
      run(take_tiles_together, blocks_of(blocks, 1), o, begun.data(), times.data());
      std::vector<uint32_t> want(count + 1, 1);
      want.back() = 0;
      expect_equal(times.values(), want);
      expect(begun.values()[0] == 3 * count, "not every tile was counted");
    }
}

}  // namespace
}  // namespace lossk::test
