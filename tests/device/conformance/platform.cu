// cuda/device/platform.h
#include "device/platform.h"

#include "device/conformance/helpers.h"

namespace lossk::test {
namespace {

struct Bytes {
  LOSSK_DEVICE int operator()(Element e) const { return element_bytes(e); }
};
LOSSK_TEST(element_bytes) {
  const std::vector<Element> all{Element::bf16, Element::fp16, Element::fp32, Element::tf32};
  const std::vector<int> want{2, 2, 4, 4};
  expect_equal(on_threads<Bytes, int>(all), want);
  for (size_t i = 0; i < all.size(); ++i) expect(element_bytes(all[i]) == want[i], "on the host");
}

LOSSK_TEST(ElementOf) {
  expect(ElementOf<Bf16>{}.value == Element::bf16 && sizeof(Bf16) == 2, "bf16");
  expect(ElementOf<Fp16>{}.value == Element::fp16 && sizeof(Fp16) == 2, "fp16");
  expect(ElementOf<float>{}.value == Element::fp32, "fp32");
}

}  // namespace
}  // namespace lossk::test
