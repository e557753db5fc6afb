// Addresses that are outside, misaligned or not what they seem, and accesses that nothing orders.
#include "device/faults/fault.h"
#include "device/shared.h"
#include "device/swizzle.h"
#include "device/tensor_map.h"
#include "device/tma.h"
#include "device/warp.h"
#include "device/wgmma.h"

namespace lossk::test {
namespace {

constexpr int kShared = 4096;

template <class F>
__global__ void on_shared(const uint32_t* global, uint32_t* out) {
  LOSSK_SHARED(raw);
  F()(align_shared<1024>(raw, shared_address(raw)), global, out);
}
template <class F, int threads = 32>
void with_shared() {
  Buffer<uint32_t> in(std::vector<uint32_t>(64, 7)), out(size_t(64));
  run(on_shared<F>, {1, threads, kShared + 1008, nullptr}, in.data(), out.data());
}

struct ReadPastTheEnd {
  LOSSK_DEVICE void operator()(unsigned char* s, const uint32_t*, uint32_t*) const {
    uint32_t r[1];
    ldmatrix(r, shared_address(s) + 3 * kShared);  // line 29
  }
};
LOSSK_TEST(shared_out_of_bounds) {
  expect_fault(
      {"ldmatrix at tests/device/faults/memory.cu:29", "are outside", "warp 0 lane"}, with_shared<ReadPastTheEnd>);
}

struct ReadMisaligned {
  LOSSK_DEVICE void operator()(unsigned char* s, const uint32_t*, uint32_t*) const {
    uint32_t r[4];
    ldmatrix(r, shared_address(s) + 8 + 16 * lane_index());
  }
};
LOSSK_TEST(shared_misaligned) { expect_fault({"is not aligned to 16 bytes"}, with_shared<ReadMisaligned>); }

struct NotShared {
  LOSSK_DEVICE void operator()(unsigned char*, const uint32_t* global, uint32_t*) const { shared_address(global); }
};
LOSSK_TEST(pointer_of_another_kind) { expect_fault({"not into shared memory"}, with_shared<NotShared>); }

struct CopyPastTheEnd {
  LOSSK_DEVICE void operator()(unsigned char* s, const uint32_t* global, uint32_t*) const {
    cp_async<16>(shared_address(s), global + 62, true);
  }
};
LOSSK_TEST(global_out_of_bounds) {
  expect_fault(
      {"cp_async at tests/device/faults/memory.cu:", "16 bytes", "outside every buffer"}, with_shared<CopyPastTheEnd>);
}

struct CopyMisaligned {
  LOSSK_DEVICE void operator()(unsigned char* s, const uint32_t* global, uint32_t*) const {
    cp_async<16>(shared_address(s), global + 1, true);
  }
};
LOSSK_TEST(global_misaligned) { expect_fault({"global address", "is not aligned to 16"}, with_shared<CopyMisaligned>); }

struct CopyNotAwaited {
  LOSSK_DEVICE void operator()(unsigned char* s, const uint32_t* global, uint32_t*) const {
    if (threadIdx.x == 0) cp_async<16>(shared_address(s), global, true);
  }
};
LOSSK_TEST(copy_never_awaited) { expect_fault({"ended without waiting for this copy"}, with_shared<CopyNotAwaited>); }

struct StoreNotAwaited {
  LOSSK_DEVICE void operator()(unsigned char* s, const uint32_t*, uint32_t* out) const {
    if (threadIdx.x) return;
    reinterpret_cast<uint32_t*>(s)[0] = 1;
    for (int i = 1; i < 4; ++i) reinterpret_cast<uint32_t*>(s)[i] = i;
    fence_proxy_async();
    bulk_store(out, s, 16);
    bulk_commit();
  }
};
LOSSK_TEST(store_never_awaited) {
  if (emulator::schedule.timing != emulator::Timing::late) return;  // read early, nothing is lost
  expect_fault({"without waiting until this store had read"}, with_shared<StoreNotAwaited>);
}

struct TwoLines {
  LOSSK_DEVICE void operator()(unsigned char*, const uint32_t*, uint32_t* out) const {
    if (lane_index() < 16) out[0] = warp_ballot(true);  // line 91
    else out[1] = warp_ballot(false);                   // line 92
  }
};
LOSSK_TEST(divergent_warp) {
  expect_fault({"divergent warp", "warp_ballot at tests/device/faults/memory.cu:9"}, with_shared<TwoLines>);
}

struct LanesLeave {
  LOSSK_DEVICE void operator()(unsigned char*, const uint32_t*, uint32_t* out) const {
    if (lane_index() < 5) return;
    out[0] = reduce_add(1);
  }
};
LOSSK_TEST(lanes_that_have_ended) { expect_fault({"lane"}, with_shared<LanesLeave>); }

struct OtherLane {
  LOSSK_DEVICE void operator()(unsigned char*, const uint32_t*, uint32_t* out) const {
    if (lane_index() < 8) out[0] = shuffle(1u, 12, 0xff);
  }
};
LOSSK_TEST(shuffle_from_outside_the_mask) {
  expect_fault({"reads lane 12, which the mask does not name"}, with_shared<OtherLane>);
}

// ---- races: only the build with the detector sees them, whatever the schedule

template <class F, int threads = 64>
void expect_race(std::initializer_list<const char*> words) {
  if (emulator::detects_races()) expect_fault(words, with_shared<F, threads>);
}

struct ReadUnwritten {
  LOSSK_DEVICE void operator()(unsigned char* s, const uint32_t*, uint32_t* out) const {
    if (threadIdx.x == 0) out[0] = reinterpret_cast<volatile uint32_t*>(s)[5];  // line 125
  }
};
LOSSK_TEST(race_with_nobody) {
  expect_race<ReadUnwritten>({"race: a load at tests/device/faults/memory.cu:125", "nothing has written"});
}

struct NoBarrier {
  LOSSK_DEVICE void operator()(unsigned char* s, const uint32_t*, uint32_t* out) const {
    auto* word = reinterpret_cast<volatile uint32_t*>(s);
    word[threadIdx.x] = 0;
    sync_block();
    word[threadIdx.x] = threadIdx.x;
    sync_warp();  // orders one warp, and the other half of the block is another
    out[threadIdx.x] = word[threadIdx.x ^ 32];
  }
};
LOSSK_TEST(race_for_lack_of_a_barrier) { expect_race<NoBarrier>({"race: ", "a load", "a store"}); }

struct ShuffleIsNoBarrier {
  LOSSK_DEVICE void operator()(unsigned char* s, const uint32_t*, uint32_t* out) const {
    auto* word = reinterpret_cast<volatile uint32_t*>(s);
    word[threadIdx.x] = threadIdx.x;
    const int next = shuffle(static_cast<int>(threadIdx.x), (lane_index() + 1) % 32);
    out[threadIdx.x] = word[next];
  }
};
LOSSK_TEST(race_in_spite_of_a_shuffle) { expect_race<ShuffleIsNoBarrier, 32>({"race: "}); }

struct WriteWhatIsRead {
  LOSSK_DEVICE void operator()(unsigned char* s, const uint32_t*, uint32_t* out) const {
    auto* word = reinterpret_cast<volatile uint32_t*>(s);
    word[threadIdx.x] = threadIdx.x;
    sync_block();
    out[threadIdx.x] = word[(threadIdx.x + 32) % 64];
    word[threadIdx.x] = 0;
  }
};
LOSSK_TEST(race_of_a_late_read) { expect_race<WriteWhatIsRead>({"race: ", "writes"}); }

// Ordinary stores that wgmma reads: through the other proxy, so a fence must come before the barrier.
template <bool fenced, bool synced>
struct StoreThenMultiply {
  LOSSK_DEVICE void operator()(unsigned char* s, const uint32_t*, uint32_t* out) const {
    for (int i = threadIdx.x; i < kShared / 4; i += 128) reinterpret_cast<volatile uint32_t*>(s)[i] = 0;
    if (fenced) fence_proxy_async();
    if (synced) sync_block();
    float d[32];
    const uint32_t tile = shared_address(s);
    wgmma_fence();
    wgmma<Bf16, 64>(
        d, matrix_descriptor(tile, 128, 256, Swizzle::none), matrix_descriptor(tile, 128, 256, Swizzle::none), false);
    wgmma_commit();
    wgmma_wait<0>();
    keep(d);
    if (threadIdx.x < 64) out[threadIdx.x] = d[0] == 0;
  }
};
LOSSK_TEST(race_for_lack_of_a_proxy_fence) {
  with_shared<StoreThenMultiply<true, true>, 128>();
  expect_race<StoreThenMultiply<false, true>, 128>({"no fence_proxy_async followed"});
  expect_race<StoreThenMultiply<true, false>, 128>({"race: wgmma", "unordered write"});
}

// ---- wgmma

template <class F>
__global__ void multiply() {
  LOSSK_SHARED(raw);
  auto* s = align_shared<1024>(raw, shared_address(raw));
  for (int i = threadIdx.x; i < kShared / 4; i += 128) reinterpret_cast<uint32_t*>(s)[i] = 0;
  fence_proxy_async();
  sync_block();
  F()(matrix_descriptor(shared_address(s), 128, 256, Swizzle::none));
}
template <class F>
void with_product() {
  run(multiply<F>, {1, 128, kShared + 1008, nullptr});
}

struct NoFence {
  LOSSK_DEVICE void operator()(uint64_t tile) const {
    float d[32];
    wgmma<Bf16, 64>(d, tile, tile, false);
  }
};
LOSSK_TEST(wgmma_without_fence) { expect_fault({"no wgmma_fence since the start"}, with_product<NoFence>); }

struct NoWait {
  LOSSK_DEVICE void operator()(uint64_t tile) const {
    float d[32];
    wgmma_fence();
    wgmma<Bf16, 64>(d, tile, tile, false);
    wgmma_commit();
  }
};
LOSSK_TEST(wgmma_never_awaited) { expect_fault({"were never waited for"}, with_product<NoWait>); }

struct OtherDescriptors {
  LOSSK_DEVICE void operator()(uint64_t tile) const {
    float d[32];
    wgmma_fence();
    wgmma<Bf16, 64>(d, tile, tile + (threadIdx.x == 77), false);
  }
};
LOSSK_TEST(wgmma_with_two_descriptors) { expect_fault({"threads 0 and 77", "differ"}, with_product<OtherDescriptors>); }

// Read before they are waited for, accumulators are nan.
__global__ void reads_early(float* out) {
  LOSSK_SHARED(raw);
  auto* s = align_shared<1024>(raw, shared_address(raw));
  for (int i = threadIdx.x; i < kShared / 4; i += 128) reinterpret_cast<uint32_t*>(s)[i] = 0;
  fence_proxy_async();
  sync_block();
  const uint64_t tile = matrix_descriptor(shared_address(s), 128, 256, Swizzle::none);
  float d[32] = {};
  wgmma_fence();
  wgmma<Bf16, 64>(d, tile, tile, false);
  wgmma_commit();
  out[threadIdx.x] = d[3];
  wgmma_wait<0>();
}
LOSSK_TEST(accumulators_read_early_are_nan) {
  Buffer<float> out(std::vector<float>(128, 0.f));
  run(reads_early, {1, 128, kShared + 1008, nullptr}, out.data());
  for (const float x : out.values()) expect(x != x, "an accumulator was there before it was waited for");
}

// ---- TMA

__global__ void load_box(const __grid_constant__ TensorMap map, int offset, int announced, int x) {
  LOSSK_SHARED(raw);
  auto* s = align_shared<1024>(raw, shared_address(raw));
  auto* b = reinterpret_cast<Mbarrier*>(s + 2048);
  mbarrier_init(b, 1);
  fence_mbarrier_init();
  mbarrier_arrive_expect(b, announced);
  tma_load(s + offset, &map, b, x, 0);
  mbarrier_wait(b, 0);
}
LOSSK_TEST(tma_rules) {
  Buffer<Bf16> tensor(size_t(64 * 8));
  TensorMap map;
  check(
      make_tensor_map(&map, {tensor.data(), Element::bf16, 2, {64, 8}, {1, 64}}, {64, 8}, Swizzle::bytes128),
      "make_tensor_map");
  const auto load = [&](int offset, int announced, int x = 0) {
    run(load_box, {1, 1, kShared + 1008, nullptr}, map, offset, announced, x);
  };
  load(0, 1024);
  load(0, 1024, -16);
  expect_fault({"tma_load", "a box 6 bytes from", "not a multiple of 16"}, [&] { load(0, 1024, 3); });
  expect_fault({"tma_load", "is not aligned to 1024"}, [&] { load(128, 1024); });
  expect_fault({"are outside"}, [&] { load(4096, 1024); });
  expect_fault({"deadlock", "mbarrier_wait", "1024 bytes to come"}, [&] { load(0, 2048); });
}

__global__ void store_box(const __grid_constant__ TensorMap map, int x, int y) {
  LOSSK_SHARED(raw);
  auto* box = reinterpret_cast<uint32_t*>(align_shared<1024>(raw, shared_address(raw)));
  for (int i = 0; i < 256; ++i) box[i] = 0;
  fence_proxy_async();
  tma_store(&map, box, x, y);
  bulk_commit();
  bulk_wait<0>();
}
LOSSK_TEST(tma_store_rules) {
  Buffer<Bf16> tensor(size_t(64 * 8));
  const auto store = [&](int width, int x, int y) {
    TensorMap map;
    check(
        make_tensor_map(&map, {tensor.data(), Element::bf16, 2, {width, 8}, {1, 64}}, {64, 8}, Swizzle::bytes128),
        "make_tensor_map");
    run(store_box, {1, 1, kShared + 1008, nullptr}, map, x, y);
  };
  store(64, 0, 0), store(56, 8, 7);
  expect_fault({"tma_store", "to (-8, 0, 0), before the tensor"}, [&] { store(64, -8, 0); });
  expect_fault({"tma_store", "to (0, -1, 0), before the tensor"}, [&] { store(64, 0, -1); });
  expect_fault({"tma_store", "end inside of 16 bytes"}, [&] { store(60, 0, 0); });
}

}  // namespace
}  // namespace lossk::test
