// cuda/device/tma.h: boxes of tensors, both ways, also over their edges.
#include "device/conformance/tma_boxes.h"

namespace lossk::test {
namespace {

struct At {
  int x, y, z;
};

template <int rank, bool prefetch>
__global__ void load_box(const __grid_constant__ TensorMap map, void* out, int bytes, int alignment, At at) {
  LOSSK_SHARED(raw);
  unsigned char* box = box_place(raw, alignment);
  auto* b = reinterpret_cast<Mbarrier*>(box + bytes);
  if (threadIdx.x == 0) {
    if (prefetch) tma_prefetch(&map);
    mbarrier_init(b, 1);
    fence_mbarrier_init();
    mbarrier_arrive_expect(b, bytes);  // all of the box, also what is outside the tensor
    if constexpr (rank == 2) tma_load(box, &map, b, at.x, at.y);
    else tma_load(box, &map, b, at.x, at.y, at.z);
  }
  sync_block();
  mbarrier_wait(b, 0);
  write_words(out, box, bytes);
}

template <class T, bool prefetch = false>
void test_load(int rank, Element element = ElementOf<T>::value) {
  const Padded<T> tensor(rank, {77, 21, 4});
  const auto data = random_integers<T>(tensor.elements(), 1, 100);
  Buffer<T> from(data);
  for (const Case& c : cases(rank, tensor)) {
    std::vector<T> want(c.elements());
    for_each_element(tensor, c, [&](size_t i, int source) { want[i] = source < 0 ? T{} : data[source]; });
    const int bytes = static_cast<int>(c.elements() * sizeof(T));
    Buffer<T> to(c.elements());
    run(rank == 2 ? load_box<2, prefetch> : load_box<3, prefetch>, blocks_of(1, kBoxThreads, shared_for(bytes)),
        tensor.map(from.data(), c.box, c.swizzle, element), to.data(), bytes, swizzle_alignment(c.swizzle),
        At{c.at[0], c.at[1], c.at[2]});
    expect_equal(to_floats(to.values()), to_floats(want), c.name().c_str());
  }
}
LOSSK_TEST(tma_load) {
  for (const int rank : {2, 3}) {
    test_load<Bf16>(rank);
    test_load<Fp16>(rank);
    test_load<float>(rank);
    test_load<float>(rank, Element::tf32);
  }
}
LOSSK_TEST(tma_prefetch) { test_load<Bf16, true>(2); }

template <int rank, bool add>
__global__ void store_box(const __grid_constant__ TensorMap map, const void* in, int bytes, int alignment, At at) {
  LOSSK_SHARED(raw);
  unsigned char* box = box_place(raw, alignment);
  fill_words(box, in, bytes);
  fence_proxy_async();
  sync_block();
  if (threadIdx.x != 0) return;
  if constexpr (rank == 2 && add) tma_reduce_add(&map, box, at.x, at.y);
  else if constexpr (rank == 2) tma_store(&map, box, at.x, at.y);
  else if constexpr (add) tma_reduce_add(&map, box, at.x, at.y, at.z);
  else tma_store(&map, box, at.x, at.y, at.z);
  bulk_commit();
  bulk_wait<0>();
}

template <class T, bool add>
void test_store(int rank) {
  constexpr int kBlocks = add ? 3 : 1;  // add all the same
  const Padded<T> tensor(rank, {80, 21, 4});
  for (const Case& c : cases(rank, tensor)) {
    if (std::ranges::min(c.at) < 0) continue;
    const auto box = random_integers<T>(c.elements(), -20, 20), before = random_integers<T>(tensor.elements());
    std::vector<T> want(before);
    for_each_element(tensor, c, [&](size_t i, int target) {
      if (target < 0) return;
      want[target] = add ? from_float<T>(to_float(before[target]) + kBlocks * to_float(box[i])) : box[i];
    });
    const int bytes = static_cast<int>(c.elements() * sizeof(T));
    Buffer<T> from(box), to(before);
    run(rank == 2 ? store_box<2, add> : store_box<3, add>, blocks_of(kBlocks, kBoxThreads, shared_for(bytes)),
        tensor.map(to.data(), c.box, c.swizzle, ElementOf<T>::value), from.data(), bytes, swizzle_alignment(c.swizzle),
        At{c.at[0], c.at[1], c.at[2]});
    expect_equal(to_floats(to.values()), to_floats(want), c.name().c_str());
  }
}
LOSSK_TEST(tma_store) {
  for (const int rank : {2, 3}) {
    test_store<Bf16, false>(rank);
    test_store<Fp16, false>(rank);
    test_store<float, false>(rank);
  }
}
LOSSK_TEST(tma_reduce_add) {
  for (const int rank : {2, 3}) {
    test_store<Bf16, true>(rank);
    test_store<Fp16, true>(rank);
    test_store<float, true>(rank);
  }
}

}  // namespace
}  // namespace lossk::test
