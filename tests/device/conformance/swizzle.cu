// cuda/device/swizzle.h: what the host and the device compute of a swizzle.
#include "device/swizzle.h"

#include "device/conformance/helpers.h"
#include "device/shared.h"

namespace lossk::test {
namespace {

struct Facts {
  int width, alignment;
};
struct FactsOf {
  LOSSK_HOST_DEVICE Facts operator()(Swizzle s) const { return {swizzle_width(s), swizzle_alignment(s)}; }
};
LOSSK_TEST(swizzle_width) {
  const std::vector<Swizzle> all{Swizzle::none, Swizzle::bytes128, Swizzle::bytes64, Swizzle::bytes32};
  const auto on_device = on_threads<FactsOf, Facts>(all);
  for (size_t i = 0; i < all.size(); ++i) {
    const int want[] = {16, 128, 64, 32};
    expect(on_device[i].width == want[i] && FactsOf()(all[i]).width == want[i], "swizzle " + std::to_string(i));
  }
}
LOSSK_TEST(swizzle_alignment) {  // the pattern's length, but for none, where it is TMA's
  const std::vector<Swizzle> all{Swizzle::none, Swizzle::bytes128, Swizzle::bytes64, Swizzle::bytes32};
  const auto on_device = on_threads<FactsOf, Facts>(all);
  for (size_t i = 0; i < all.size(); ++i) {
    const int want[] = {128, 1024, 512, 256};
    expect(on_device[i].alignment == want[i] && FactsOf()(all[i]).alignment == want[i], "swizzle " + std::to_string(i));
  }
}

template <Swizzle s>
struct Swizzled {
  LOSSK_HOST_DEVICE uint32_t operator()(uint32_t address) const { return swizzled(address, s); }
};
template <Swizzle s>
void test_swizzled() {
  const uint32_t start = 1024 * random_integer(0, 200);
  std::vector<uint32_t> addresses, want;
  for (uint32_t i = 0; i < 2048; i += 2) {
    addresses.push_back(start + i);
    want.push_back(place_under(s, start + i));
  }
  expect_equal(on_threads<Swizzled<s>, uint32_t>(addresses), want);
  for (size_t i = 0; i < want.size(); ++i) expect(Swizzled<s>()(addresses[i]) == want[i], "on the host");
}
LOSSK_TEST(swizzled) {
  test_swizzled<Swizzle::none>();
  test_swizzled<Swizzle::bytes128>();
  test_swizzled<Swizzle::bytes64>();
  test_swizzled<Swizzle::bytes32>();
}

struct Chunk {
  uint32_t tile;
  int row, chunk;
};
template <Swizzle s>
struct ChunkAddress {
  LOSSK_HOST_DEVICE uint32_t operator()(Chunk c) const { return tile_address<s>(c.tile, c.row, c.chunk); }
};
template <Swizzle s>
void test_tile_address() {
  constexpr int kRows = 64, kWidth = kWidths[static_cast<int>(s)];
  const uint32_t tile = 1024 * random_integer(0, 200);
  std::vector<Chunk> chunks;
  std::vector<uint32_t> want;
  for (int row = 0; row < kRows; ++row)
    for (int chunk = 0; chunk < kWidth / 16; ++chunk) {
      chunks.push_back({tile, row, chunk});
      want.push_back(place_under(s, tile + row * kWidth + chunk * 16));
    }
  expect_equal(on_threads<ChunkAddress<s>, uint32_t>(chunks), want);
  for (size_t i = 0; i < want.size(); ++i) expect(ChunkAddress<s>()(chunks[i]) == want[i], "on the host");
}
LOSSK_TEST(tile_address) {
  test_tile_address<Swizzle::none>();
  test_tile_address<Swizzle::bytes128>();
  test_tile_address<Swizzle::bytes64>();
  test_tile_address<Swizzle::bytes32>();
}

template <int alignment>
__global__ void align(uint32_t* from, uint32_t* to) {
  LOSSK_SHARED(raw);
  unsigned char* p = raw + 16 * threadIdx.x;
  unsigned char* aligned = align_shared<alignment>(p, shared_address(p));
  from[threadIdx.x] = shared_address(p);
  to[threadIdx.x] = static_cast<uint32_t>(aligned - p);
}
template <int alignment>
void test_align() {
  Buffer<uint32_t> from(128), to(128);
  run(align<alignment>, blocks_of(1, 128, 16 * 128 + alignment), from.data(), to.data());
  const auto start = from.values(), distance = to.values();
  for (int i = 0; i < 128; ++i)
    expect((start[i] + distance[i]) % alignment == 0 && distance[i] < alignment, "to " + std::to_string(alignment));
}
LOSSK_TEST(align_shared) {
  test_align<16>();
  test_align<128>();
  test_align<256>();
  test_align<512>();
  test_align<1024>();
}

}  // namespace
}  // namespace lossk::test
