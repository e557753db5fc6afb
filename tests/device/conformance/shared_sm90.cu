// cuda/device/shared.h: stmatrix.
#include "device/barrier.h"
#include "device/conformance/matrices.h"
#include "device/shared.h"

namespace lossk::test {
namespace {

template <int count, bool transposed>
__global__ void store_matrices(const uint32_t* in, const int* row, uint32_t* out) {
  LOSSK_SHARED(raw);
  auto* words = reinterpret_cast<uint32_t*>(raw);
  for (int i = threadIdx.x; i < kMatrixRows * 4; i += kWarp) words[i] = 0xeeeeeeee;
  sync_block();
  uint32_t r[count];
  for (int i = 0; i < count; ++i) r[i] = in[32 * i + threadIdx.x];
  stmatrix<transposed>(shared_address(raw + 16 * row[threadIdx.x]), r);
  sync_block();
  for (int i = threadIdx.x; i < kMatrixRows * 4; i += kWarp) out[i] = words[i];
}

template <int count, bool transposed>
void test_stmatrix() {
  const auto registers = random_bits(32 * count);
  const auto rows = random_order(kMatrixRows);
  Buffer<uint32_t> in(registers), out(kMatrixRows * 4);
  Buffer<int> row(rows);
  run(store_matrices<count, transposed>, blocks_of(1, 32, kMatrixRows * 16), in.data(), row.data(), out.data());
  std::vector<uint32_t> want(kMatrixRows * 4, 0xeeeeeeee);
  for_each_half(count, transposed, [&](int i, int lane, int half, int matrix_row, int column) {
    uint32_t& word = want[rows[8 * i + matrix_row] * 4 + column / 2];
    const uint32_t bits = registers[32 * i + lane] >> 16 * half & 0xffff;
    word = column % 2 ? (word & 0xffff) | bits << 16 : (word & 0xffff0000) | bits;
  });
  expect_equal(out.values(), want);
}
LOSSK_TEST(stmatrix) {
  test_stmatrix<1, false>();
  test_stmatrix<2, false>();
  test_stmatrix<4, false>();
  test_stmatrix<1, true>();
  test_stmatrix<2, true>();
  test_stmatrix<4, true>();
}

}  // namespace
}  // namespace lossk::test
