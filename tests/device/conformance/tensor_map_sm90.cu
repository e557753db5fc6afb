// cuda/device/tensor_map.h
#include "device/conformance/tma_boxes.h"

namespace lossk::test {
namespace {

// Some 3D tensor and box that may be mapped, to be spoilt.
struct Wish {
  Tensor tensor;
  int box[3];
  Swizzle swizzle;
};
bool granted(const Wish& w) { return can_map(w.tensor, w.box, w.swizzle); }
bool made(const Wish& w) {
  TensorMap map;
  return make_tensor_map(&map, w.tensor, w.box, w.swizzle) == cudaSuccess;
}
Wish wish(const void* data) {
  return {{data, Element::bf16, 3, {100, 20, 5}, {1, 104, 104 * 24}}, {64, 8, 2}, Swizzle::bytes128};
}

template <class F>
void expect_all(bool want, const Wish& start, std::initializer_list<F> changes, bool (*judge)(const Wish&)) {
  int i = 0;
  for (const F& change : changes) {
    Wish w = start;
    change(w);
    expect(judge(w) == want, (want ? "refused: change " : "granted: change ") + std::to_string(i));
    ++i;
  }
}
void test_rules(bool (*judge)(const Wish&)) {
  Buffer<uint16_t> memory(104 * 24 * 5 + 16);
  const Wish start = wish(memory.data());
  using Change = void (*)(Wish&);
  expect_all<Change>(
      true, start,
      {[](Wish&) {}, [](Wish& w) { w.tensor.rank = 2, w.tensor.size[2] = -1, w.box[2] = 0; },
       [](Wish& w) { w.tensor.data = static_cast<const char*>(w.tensor.data) + 16; },
       [](Wish& w) { w.tensor.stride[0] = 77; }, [](Wish& w) { w.box[0] = 32, w.swizzle = Swizzle::bytes64; },
       [](Wish& w) { w.box[0] = 16, w.swizzle = Swizzle::bytes32; },
       [](Wish& w) { w.box[0] = 32, w.tensor.element = Element::fp32; },
       [](Wish& w) { w.box[0] = 32, w.tensor.element = Element::tf32; },
       [](Wish& w) { w.tensor.element = Element::fp16; }, [](Wish& w) { w.box[0] = 256, w.swizzle = Swizzle::none; },
       [](Wish& w) { w.box[0] = 8, w.swizzle = Swizzle::none; }, [](Wish& w) { w.box[1] = 256; },
       [](Wish& w) { w.box[1] = w.box[2] = 1; },
       [](Wish& w) { w.tensor.size[0] = w.tensor.size[1] = w.tensor.size[2] = 1; },
       [](Wish& w) { w.tensor.size[0] = 3; }},  // smaller than the box
      judge);
  expect_all<Change>(
      false, start,
      {[](Wish& w) { w.tensor.rank = 1; },
       [](Wish& w) { w.tensor.rank = 4; },
       [](Wish& w) { w.tensor.data = static_cast<const char*>(w.tensor.data) + 8; },
       [](Wish& w) { w.tensor.size[0] = 0; },
       [](Wish& w) { w.tensor.size[1] = 0; },
       [](Wish& w) { w.tensor.size[2] = -1; },
       [](Wish& w) { w.tensor.size[1] = (int64_t{1} << 32) + 1; },
       [](Wish& w) { w.tensor.stride[1] = 100; },
       [](Wish& w) { w.tensor.stride[2] = 104 * 24 + 4; },
       [](Wish& w) { w.tensor.stride[1] = 0; },
       [](Wish& w) { w.tensor.stride[2] = -104; },
       [](Wish& w) { w.tensor.stride[2] = int64_t{1} << 39; },
       [](Wish& w) { w.box[0] = 0; },
       [](Wish& w) { w.box[1] = 257; },
       [](Wish& w) { w.box[2] = -1; },
       [](Wish& w) { w.box[0] = 60; },   // not as wide as the swizzle
       [](Wish& w) { w.box[0] = 128; },  // wider
       [](Wish& w) { w.swizzle = Swizzle::bytes64; },
       [](Wish& w) { w.box[0] = 12, w.swizzle = Swizzle::none; },
       [](Wish& w) { w.box[0] = 264, w.swizzle = Swizzle::none; },
       [](Wish& w) { w.tensor.element = Element::fp32; }},
      judge);
}
LOSSK_TEST(can_map) { test_rules(granted); }

// What is refused is refused, and a map means the tensor, the box and the swizzle that it was made of.
__global__ void load(const __grid_constant__ TensorMap map, uint32_t* out, int bytes) {
  LOSSK_SHARED(raw);
  unsigned char* box = box_place(raw, 0);
  auto* b = reinterpret_cast<Mbarrier*>(box + bytes);
  if (threadIdx.x == 0) {
    mbarrier_init(b, 1);
    fence_mbarrier_init();
    mbarrier_arrive_expect(b, bytes);
    tma_load(box, &map, b, 8, 3, 1);
  }
  sync_block();
  mbarrier_wait(b, 0);
  write_words(out, box, bytes);
}
LOSSK_TEST(make_tensor_map) {
  test_rules(made);
  const auto data = random_bits((2 * 104 * 24 + 20 * 104) / 2);
  Buffer<uint32_t> from(data);
  for (const Swizzle s : kSwizzles) {
    Wish w = wish(from.data());
    w.tensor.size[2] = 3;
    w.swizzle = s;
    w.box[0] = s == Swizzle::none ? 24 : kWidths[static_cast<int>(s)] / 2;
    const int bytes = w.box[0] * 2 * 8 * 2;
    std::vector<uint32_t> want(bytes / 4);
    for (int i = 0; i < bytes / 4; ++i) {
      const int words = w.box[0] / 2, x = 4 + i % words, y = 3 + i / words % 8, z = 1 + i / words / 8;
      want[place_under(s, 4 * i) / 4] = data[x + y * 52 + z * 52 * 24];
    }
    TensorMap map;
    check(make_tensor_map(&map, w.tensor, w.box, w.swizzle), "make_tensor_map");
    Buffer<uint32_t> to(want.size());
    run(load, blocks_of(1, kBoxThreads, shared_for(bytes)), map, to.data(), bytes);
    expect_equal(to.values(), want);
  }
}

}  // namespace
}  // namespace lossk::test
