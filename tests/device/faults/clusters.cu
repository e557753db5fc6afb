// Broken uses of clusters, and what the emulator says of them.
#include "device/cluster.h"

#include "device/faults/fault.h"
#include "device/swizzle.h"
#include "device/tensor_map.h"
#include "device/tma.h"

namespace lossk::test {
namespace {

Launch pair_of(int threads, int shared_bytes) {
  Launch l{2, threads, shared_bytes, nullptr};
  l.cluster = 2;
  return l;
}

__global__ void nothing() {}
LOSSK_TEST(cluster_of_an_odd_grid) {
  Launch l{3, 32, 0, nullptr};
  l.cluster = 2;
  expect_fault({"clusters of 2 blocks", "in 3"}, [&] { run(nothing, l); });
}

__global__ void half_a_cluster_syncs() {
  if (cluster_rank() == 0) sync_cluster();
  else barrier_sync(1, 64);
}
LOSSK_TEST(deadlock_at_a_cluster_barrier) {
  expect_fault({"deadlock", "32 threads in sync_cluster"}, [] { run(half_a_cluster_syncs, pair_of(32, 0)); });
}

struct Place {
  Mbarrier barrier;
  alignas(128) uint32_t words[32];
};
LOSSK_DEVICE Place& place(unsigned char* raw) {
  return *reinterpret_cast<Place*>(align_shared<128>(raw, shared_address(raw)));
}
constexpr int kBytes = sizeof(Place) + 128;

__global__ void arrive_at(int rank, bool other_stays) {
  LOSSK_SHARED(raw);
  Place& s = place(raw);
  if (threadIdx.x == 0) {
    mbarrier_init(&s.barrier, 2);
    fence_mbarrier_init();
  }
  sync_cluster();
  if (cluster_rank() == 1 && !other_stays) return;
  if (cluster_rank() == 0)
    for (int i = 0; i < 100; ++i) mbarrier_try_wait(&s.barrier, 0);  // the other ends meanwhile
  if (cluster_rank() == 0 && threadIdx.x == 0) mbarrier_arrive_at(&s.barrier, rank);
  if (other_stays) sync_cluster();
}
LOSSK_TEST(arrival_at_a_block_that_has_ended) {
  expect_fault({"block 1 of the cluster has ended"}, [] { run(arrive_at, pair_of(32, kBytes), 1, false); });
}
LOSSK_TEST(arrival_at_no_block) {
  expect_fault({"block 2 of a cluster of 2"}, [] { run(arrive_at, pair_of(32, kBytes), 2, true); });
}

// The word that one block loads into another's memory.
TensorMap map_of(const Buffer<uint32_t>& words) {
  TensorMap map;
  check(make_tensor_map(&map, {words.data(), Element::fp32, 2, {32, 1}, {1, 32}}, {32, 1, 1}, Swizzle::none), "map");
  return map;
}

// Block 1 reads its words, then block 0 overwrites them: after a word from block 1, or without one.
__global__ void overwrite_the_others(const __grid_constant__ TensorMap map, uint32_t* out, bool waits) {
  LOSSK_SHARED(raw);
  Place& s = place(raw);
  s.words[threadIdx.x] = threadIdx.x;
  fence_proxy_async();
  if (threadIdx.x == 0) {
    mbarrier_init(&s.barrier, cluster_rank() ? 1 : blockDim.x);
    if (cluster_rank()) mbarrier_arrive_expect(&s.barrier, 128);
    fence_mbarrier_init();
  }
  sync_cluster();
  if (cluster_rank() == 1) {
    out[threadIdx.x] = s.words[threadIdx.x];
    if (waits) mbarrier_arrive_at(&s.barrier, 0);
    mbarrier_wait(&s.barrier, 0);
  } else if (threadIdx.x == 0) {
    if (waits) mbarrier_wait(&s.barrier, 0);
    tma_multicast(s.words, &map, &s.barrier, 0, 0, 2);
  }
  sync_cluster();
}
LOSSK_TEST(load_into_what_another_block_still_reads) {
  Buffer<uint32_t> from(32), out(32);
  run(overwrite_the_others, pair_of(32, kBytes), map_of(from), out.data(), true);
  if (!emulator::detects_races()) return;
  expect_fault({"race: ", "tma_multicast", "writes what an unordered read reads"}, [&] {
    run(overwrite_the_others, pair_of(32, kBytes), map_of(from), out.data(), false);
  });
}

// A block whose peer may load into it before its mbarrier is there.
__global__ void load_too_early(const __grid_constant__ TensorMap map, bool fences) {
  LOSSK_SHARED(raw);
  Place& s = place(raw);
  if (threadIdx.x == 0) {
    mbarrier_init(&s.barrier, 1);
    if (fences) fence_mbarrier_init();
    mbarrier_arrive_expect(&s.barrier, 128);
  }
  sync_cluster();
  if (cluster_rank() == 0 && threadIdx.x == 0) tma_multicast(s.words, &map, &s.barrier, 0, 0, 3);
  mbarrier_wait(&s.barrier, 0);
  sync_cluster();
}
LOSSK_TEST(load_counted_on_an_mbarrier_without_a_fence) {
  Buffer<uint32_t> from(32);
  run(load_too_early, pair_of(32, kBytes), map_of(from), true);
  if (!emulator::detects_races()) return;
  expect_fault({"race: ", "no fence_mbarrier_init followed"}, [&] {
    run(load_too_early, pair_of(32, kBytes), map_of(from), false);
  });
}

}  // namespace
}  // namespace lossk::test
