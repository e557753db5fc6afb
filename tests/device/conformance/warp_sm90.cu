// cuda/device/warp.h: what only sm_90 has.
#include "device/conformance/helpers.h"
#include "device/warp.h"

namespace lossk::test {
namespace {

struct Elect {
  LOSSK_DEVICE uint32_t operator()(uint32_t x) const { return elect_one() ? x : 0; }
};
LOSSK_TEST(elect_one) {
  const auto x = random_integers<float>(128, 1, 1000);
  const auto got = on_threads<Elect, uint32_t>(std::vector<uint32_t>(x.begin(), x.end()));
  for (int warp = 0; warp < 4; ++warp) {
    int chosen = 0;
    for (int i = 32 * warp; i < 32 * warp + 32; ++i) {
      chosen += got[i] != 0;
      expect(got[i] == 0 || got[i] == x[i], "an elected lane has another's number");
    }
    expect(chosen == 1, std::to_string(chosen) + " lanes of a warp were elected");
  }
}

}  // namespace
}  // namespace lossk::test
