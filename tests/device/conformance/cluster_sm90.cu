// cuda/device/cluster.h, and what of ring.h, tma.h, tiles.h and launch.h is about clusters.
#include "device/cluster.h"

#include "device/conformance/tma_boxes.h"
#include "device/grid.h"
#include "device/ring.h"
#include "device/tiles.h"
#include "device/warp.h"

namespace lossk::test {
namespace {

Launch clusters_of(int size, int clusters, int threads, int shared_bytes = 0) {
  Launch l = blocks_of(size * clusters, threads, shared_bytes);
  l.cluster = size;
  return l;
}

__global__ void who_is_where(int* size, int* rank) {
  size[blockIdx.x] = cluster_size();
  rank[blockIdx.x] = cluster_rank();
}
void test_places() {
  for (const int size : {1, 2, 4, 8}) {
    constexpr int kClusters = 3;
    Buffer<int> sizes(size * kClusters), ranks(size * kClusters);
    run(who_is_where, clusters_of(size, kClusters, 1), sizes.data(), ranks.data());
    std::vector<int> want;
    for (int i = 0; i < size * kClusters; ++i) want.push_back(i % size);
    expect_equal(ranks.values(), want, "rank");
    expect_equal(sizes.values(), std::vector<int>(size * kClusters, size), "size");
  }
}
LOSSK_TEST(cluster_size) { test_places(); }
LOSSK_TEST(cluster_rank) { test_places(); }

int resident_clusters(int size) {
  int blocks = 0;
  check(resident_blocks(who_is_where, clusters_of(size, 1, 512, 64 * 1024), &blocks), "resident_blocks");
  return blocks;
}
LOSSK_TEST(resident_clusters) {
  for (const int size : {1, 2, 4}) {
    const int blocks = resident_clusters(size);
    expect(blocks >= size && blocks % size == 0, "resident_blocks: " + std::to_string(blocks));
  }
}

// Each block writes a line of global memory, then reads its neighbour's; some of its threads have ended before.
__global__ void round_the_cluster(const uint32_t* in, uint32_t* out, int ended) {
  const int i = threadIdx.x, size = blockDim.x, peers = cluster_size();
  if (i >= size - ended) return;
  const int first = (static_cast<int>(blockIdx.x) - cluster_rank()) * size;
  uint32_t* lines = out + gridDim.x * size;
  uint32_t x = in[blockIdx.x * size + i];
  for (int round = 0; round < 4; ++round) {
    lines[blockIdx.x * size + i] = x;
    sync_cluster();
    x = lines[first + (cluster_rank() + 1) % peers * size + i] + 1;
    sync_cluster();
  }
  out[blockIdx.x * size + i] = x;
}
LOSSK_TEST(sync_cluster) {
  for (const int peers : {1, 2, 4})
    for (const int ended : {0, 32, 5}) {
      constexpr int kThreads = 96, kClusters = 2;
      const int blocks = peers * kClusters;
      const auto x = random_bits(blocks * kThreads);
      Buffer<uint32_t> in(x), out(std::vector<uint32_t>(2 * blocks * kThreads));
      run(round_the_cluster, clusters_of(peers, kClusters, kThreads), in.data(), out.data(), ended);
      auto got = out.values();
      got.resize(blocks * kThreads);
      std::vector<uint32_t> want(got.size());
      for (int b = 0; b < blocks; ++b)
        for (int i = 0; i < kThreads - ended; ++i)
          want[b * kThreads + i] = x[(b / peers * peers + (b + 4) % peers) * kThreads + i] + 4;
      expect_equal(got, want);
    }
}

// Every block's mbarrier, of 1, 2, ... arrivals, gets one from its neighbour a round, and none from itself: which
// phases are complete.
constexpr int kRounds = 6;
__global__ void arrive_at_the_neighbour(int* complete) {
  LOSSK_SHARED(raw);
  auto* b = reinterpret_cast<Mbarrier*>(raw);
  mbarrier_init(b, cluster_rank() + 1);
  fence_mbarrier_init();
  for (int round = 0; round < kRounds; ++round) {
    sync_cluster();
    for (uint32_t parity = 0; parity < 2; ++parity)
      complete[(static_cast<int>(blockIdx.x) * kRounds + round) * 2 + parity] = mbarrier_try_wait(b, parity);
    sync_cluster();
    mbarrier_arrive_at(b, (cluster_rank() + 1) % cluster_size());
  }
  sync_cluster();
}
LOSSK_TEST(mbarrier_arrive_at) {
  constexpr int kClusters = 2;
  for (const int peers : {1, 2, 4}) {
    Buffer<int> complete(peers * kClusters * kRounds * 2);
    run(arrive_at_the_neighbour, clusters_of(peers, kClusters, 1, 16), complete.data());
    std::vector<int> want;
    for (int block = 0; block < peers * kClusters; ++block)
      for (int round = 0; round < kRounds; ++round) {
        const int phase = round / (block % peers + 1);
        want.push_back(phase % 2 == 1);
        want.push_back(phase % 2 == 0);
      }
    expect_equal(complete.values(), want);
  }
}

// Block `rank` of the cluster loads the box for those of `blocks`; the others see their memory as it was.
template <int rank>
__global__ void load_for_others(
    const __grid_constant__ TensorMap map, void* out, int bytes, int alignment, int x, int y, int z, int from,
    uint16_t blocks) {
  LOSSK_SHARED(raw);
  unsigned char* box = box_place(raw, alignment);
  auto* b = reinterpret_cast<Mbarrier*>(box + bytes);
  const bool gets = blocks >> cluster_rank() & 1;
  for (int i = threadIdx.x; i < bytes / 4; i += kBoxThreads) reinterpret_cast<uint32_t*>(box)[i] = 0;
  fence_proxy_async();
  if (threadIdx.x == 0) {
    mbarrier_init(b, 1);
    fence_mbarrier_init();
    if (gets) mbarrier_arrive_expect(b, bytes);
  }
  sync_cluster();
  if (cluster_rank() == from && threadIdx.x == 0) {
    if constexpr (rank == 2) tma_multicast(box, &map, b, x, y, blocks);
    else tma_multicast(box, &map, b, x, y, z, blocks);
  }
  if (gets) mbarrier_wait(b, 0);
  write_words(static_cast<char*>(out) + static_cast<int>(blockIdx.x) * bytes, box, bytes);
  sync_cluster();
}
LOSSK_TEST(tma_multicast) {
  constexpr int kPeers = 4, kClusters = 2;
  for (const int rank : {2, 3}) {
    const Padded<Bf16> tensor(rank, {77, 21, 4});
    const auto data = random_integers<Bf16>(tensor.elements(), 1, 100);
    Buffer<Bf16> source(data);
    int turn = 0;
    for (const Case& c : cases(rank, tensor)) {
      const int from = turn++ % kPeers, blocks = random_integer(1, (1 << kPeers) - 1);
      std::vector<Bf16> box(c.elements()), want;
      for_each_element(tensor, c, [&](size_t i, int at) { box[i] = at < 0 ? Bf16{} : data[at]; });
      for (int b = 0; b < kPeers * kClusters; ++b) {
        const std::vector<Bf16> mine = blocks >> b % kPeers & 1 ? box : std::vector<Bf16>(c.elements(), Bf16{});
        want.insert(want.end(), mine.begin(), mine.end());
      }
      const int bytes = static_cast<int>(c.elements() * sizeof(Bf16));
      Buffer<Bf16> to(want.size());
      run(rank == 2 ? load_for_others<2> : load_for_others<3>,
          clusters_of(kPeers, kClusters, kBoxThreads, shared_for(bytes)),
          tensor.map(source.data(), c.box, c.swizzle, Element::bf16), to.data(), bytes, swizzle_alignment(c.swizzle),
          c.at[0], c.at[1], c.at[2], from, static_cast<uint16_t>(blocks));
      expect_equal(to_floats(to.values()), to_floats(want), c.name().c_str());
    }
  }
}

// Every cluster does whole rows of tiles, a block of it each: the tiles that take_tiles of one block would.
__global__ void tiles_of_clusters(TileOrder order, uint32_t* times) {
  for (PersistentTiles tile(order, cluster_size()); tile; ++tile)
    atomic_add(&times[((*tile).row * cluster_size() + cluster_rank()) * order.columns + (*tile).column], 1u);
}
LOSSK_TEST(tiles_of_clusters) {
  for (const int peers : {1, 2, 4})
    for (const int clusters : {1, 3}) {
      const TileOrder order{5, 7, 2};
      const int all = order.rows * peers * order.columns;
      Buffer<uint32_t> times(std::vector<uint32_t>(all, 0));
      run(tiles_of_clusters, clusters_of(peers, clusters, 1), order, times.data());
      expect_equal(times.values(), std::vector<uint32_t>(all, 1));
    }
}

// A ring whose stages every producer fills a part of, in all blocks.
constexpr int kBox = 32;  // of 4 bytes: a line of the widest swizzle
template <int stages>
__global__ void ring_of_a_cluster(const __grid_constant__ TensorMap map, uint32_t* out, int turns) {
  LOSSK_SHARED(raw);
  auto* words = reinterpret_cast<uint32_t*>(align_shared<1024>(raw, shared_address(raw)));
  const int warp = threadIdx.x / kWarp, consumers = blockDim.x / kWarp - 1, peers = cluster_size();
  const int stage_words = peers * kBox, rank = cluster_rank();
  auto* ring = reinterpret_cast<Ring<stages>*>(words + stages * stage_words);
  if (threadIdx.x == 0) ring->init(peers * consumers);
  sync_cluster();
  if (warp == 0) {
    if (lane_index() != 0) return;
    RingTurn<stages> turn;
    for (int i = 0; i < turns; ++i, ++turn) {
      Mbarrier* b = ring->fill(turn, stage_words * 4);
      const uint16_t all = static_cast<uint16_t>((1 << peers) - 1);
      tma_multicast(words + turn.stage * stage_words + rank * kBox, &map, b, 0, i * peers + rank, all);
    }
    return;
  }
  uint32_t sum = warp + 100 * rank;
  RingTurn<stages> turn;
  for (int i = 0; i < turns; ++i, ++turn) {
    ring->wait_full(turn);
    for (int j = lane_index(); j < stage_words; j += kWarp) sum = 3 * sum + words[turn.stage * stage_words + j];
    sync_warp();
    if (lane_index() < peers) ring->release(turn, lane_index());
  }
  out[(static_cast<int>(blockIdx.x) * consumers - 1) * kWarp + threadIdx.x] = sum;
  sync_cluster();
}
template <int stages>
void test_ring(int peers, int consumers, int turns) {
  const auto x = random_bits((peers * turns + 1) * kBox);
  Buffer<uint32_t> in(x), out(2 * peers * kWarp * consumers);
  TensorMap map;
  const Tensor t{in.data(), Element::fp32, 2, {kBox, peers * turns + 1}, {1, kBox}};
  check(make_tensor_map(&map, t, {kBox, 1, 1}, Swizzle::none), "make_tensor_map");
  run(ring_of_a_cluster<stages>,
      clusters_of(peers, 2, kWarp * (1 + consumers), 1024 + stages * (16 + 4 * peers * kBox)), map, out.data(), turns);
  std::vector<uint32_t> want;
  for (int block = 0; block < 2 * peers; ++block)
    for (int thread = 0; thread < kWarp * consumers; ++thread) {
      uint32_t sum = 1 + thread / kWarp + 100 * (block % peers);
      for (int i = 0; i < turns; ++i)
        for (int j = thread % kWarp; j < peers * kBox; j += kWarp) sum = 3 * sum + x[i * peers * kBox + j];
      want.push_back(sum);
    }
  expect_equal(out.values(), want);
}
LOSSK_TEST(ring_of_a_cluster) {
  for (const int turns : {0, 1, 7, 20}) {
    test_ring<1>(2, 1, turns);
    test_ring<2>(2, 3, turns);
    test_ring<4>(4, 2, turns);
    test_ring<3>(1, 2, turns);
  }
}

}  // namespace
}  // namespace lossk::test
