// cuda/device/shared.h: addresses, ldmatrix, cp.async.
#include "device/shared.h"

#include "device/barrier.h"
#include "device/conformance/matrices.h"
#include "device/warp.h"

namespace lossk::test {
namespace {

// Each thread writes through a pointer what the next reads by the address, and tells how far it is from the start.
__global__ void by_address(const uint32_t* in, uint32_t* out, int* distance) {
  LOSSK_SHARED(raw);
  const int i = threadIdx.x;
  reinterpret_cast<uint32_t*>(raw)[i] = in[i];
  sync_block();
  distance[i] = static_cast<int>(shared_address(raw + 4 * i) - shared_address(raw));
  uint32_t r[1];
  ldmatrix(r, shared_address(raw) + lane_index() % 8 * 16);
  out[i] = r[0];
}
LOSSK_TEST(shared_address) {
  const auto x = random_bits(32);
  Buffer<uint32_t> in(x), out(32);
  Buffer<int> distance(32);
  run(by_address, blocks_of(1, 32, 128), in.data(), out.data(), distance.data());
  expect_equal(out.values(), x);
  for (int i = 0; i < 32; ++i) expect(distance.values()[i] == 4 * i, "addresses are not bytes");
}

template <int count, bool transposed>
__global__ void load_matrices(const uint32_t* in, const int* row, uint32_t* out) {
  LOSSK_SHARED(raw);
  for (int i = 0; i < kMatrixRows * 16 / 4 / kWarp; ++i)
    reinterpret_cast<uint32_t*>(raw)[32 * i + threadIdx.x] = in[32 * i + threadIdx.x];
  sync_block();
  uint32_t r[count];
  ldmatrix<transposed>(r, shared_address(raw + 16 * row[threadIdx.x]));
  for (int i = 0; i < count; ++i) out[32 * i + threadIdx.x] = r[i];
}

template <int count, bool transposed>
void test_ldmatrix() {
  const auto memory = random_bits(kMatrixRows * 4);
  const auto rows = random_order(kMatrixRows);  // the first 8 `count` matter, each lane has one
  Buffer<uint32_t> in(memory), out(32 * count);
  Buffer<int> row(rows);
  run(load_matrices<count, transposed>, blocks_of(1, 32, kMatrixRows * 16), in.data(), row.data(), out.data());
  const auto got = out.values();
  for_each_half(count, transposed, [&](int i, int lane, int half, int matrix_row, int column) {
    const uint32_t word = memory[rows[8 * i + matrix_row] * 4 + column / 2];
    expect(
        (got[32 * i + lane] >> 16 * half & 0xffff) == (word >> column % 2 * 16 & 0xffff),
        "matrix " + std::to_string(i) + " of " + std::to_string(count) + ", lane " + std::to_string(lane) + ", half " +
            std::to_string(half) + (transposed ? ", transposed" : ""));
  });
}
LOSSK_TEST(ldmatrix) {
  test_ldmatrix<1, false>();
  test_ldmatrix<2, false>();
  test_ldmatrix<4, false>();
  test_ldmatrix<1, true>();
  test_ldmatrix<2, true>();
  test_ldmatrix<4, true>();
}

// Copies go to every other place; what lies between must stay.
constexpr int kCopiers = 64;
template <int bytes>
__global__ void copy_some(const uint16_t* in, const int* place, const int* valid, uint16_t* out) {
  LOSSK_SHARED(raw);
  constexpr int kHalves = bytes / 2, kAll = 2 * kHalves * kCopiers;
  auto* halves = reinterpret_cast<uint16_t*>(raw);
  for (int i = threadIdx.x; i < kAll; i += kCopiers) halves[i] = 0xeeee;
  sync_block();
  const int i = threadIdx.x;
  // Past the end of memory where not valid: nothing is read there.
  const uint16_t* from = in + kHalves * (valid[i] ? i : kCopiers);
  cp_async<bytes>(shared_address(halves + 2 * kHalves * place[i]), from, valid[i]);
  cp_async_commit();
  cp_async_wait<0>();
  sync_block();
  for (int j = threadIdx.x; j < kAll; j += kCopiers) out[j] = halves[j];
}
template <int bytes>
void test_cp_async() {
  constexpr int kHalves = bytes / 2;
  std::vector<uint16_t> data(kHalves * kCopiers), want(2 * kHalves * kCopiers, 0xeeee);
  for (auto& x : data) x = static_cast<uint16_t>(random_integer(0, 65535));
  const auto places = random_order(kCopiers);
  std::vector<int> valid;
  for (int i = 0; i < kCopiers; ++i) {
    valid.push_back(random_integer(0, 3) > 0);
    for (int j = 0; j < kHalves; ++j) want[2 * kHalves * places[i] + j] = valid[i] ? data[kHalves * i + j] : 0;
  }
  Buffer<uint16_t> in(data), out(want.size());
  Buffer<int> place(places), is_valid(valid);
  run(copy_some<bytes>, blocks_of(1, kCopiers, 2 * bytes * kCopiers), in.data(), place.data(), is_valid.data(),
      out.data());
  expect_equal(out.values(), want);
}
LOSSK_TEST(cp_async) {
  test_cp_async<4>();
  test_cp_async<8>();
  test_cp_async<16>();
}

// A group holds what was copied since the last commit, also nothing.
__global__ void copy_in_groups(const uint32_t* in, uint32_t* out) {
  LOSSK_SHARED(raw);
  auto* words = reinterpret_cast<uint32_t*>(raw);
  const int i = threadIdx.x;
  const auto start = [&](int part) { cp_async<4>(shared_address(words + 64 * part + i), in + 64 * part + i, true); };
  start(0);
  start(1);
  cp_async_commit();
  cp_async_commit();
  start(2);
  cp_async_commit();
  cp_async_wait<2>();
  out[i] = words[i];
  out[64 + i] = words[64 + i];
  cp_async_wait<0>();
  out[128 + i] = words[128 + i];
}
LOSSK_TEST(cp_async_commit) {
  const auto x = random_bits(3 * 64);
  Buffer<uint32_t> in(x), out(x.size());
  run(copy_in_groups, blocks_of(1, 64, 3 * 64 * 4), in.data(), out.data());
  expect_equal(out.values(), x);
}

// A pipeline of three stages. Each is read by the next thread, after a barrier, and then filled again.
constexpr int kRounds = 10;
__global__ void pipeline(const uint32_t* in, uint32_t* out) {
  LOSSK_SHARED(raw);
  auto* words = reinterpret_cast<uint32_t*>(raw);
  const int i = threadIdx.x;
  const auto start = [&](int round) {
    if (round < kRounds) cp_async<4>(shared_address(words + round % 3 * 64 + i), in + round * 64 + i, true);
    cp_async_commit();
  };
  start(0);
  start(1);
  for (int round = 0; round < kRounds; ++round) {
    cp_async_wait<1>();
    sync_block();
    out[round * 64 + i] = words[round % 3 * 64 + (i + 1) % 64];
    start(round + 2);  // where the last round was read: the barrier above came between
  }
}
LOSSK_TEST(cp_async_wait) {
  const auto x = random_bits(kRounds * 64);
  Buffer<uint32_t> in(x), out(x.size());
  run(pipeline, blocks_of(1, 64, 3 * 64 * 4), in.data(), out.data());
  std::vector<uint32_t> want;
  for (size_t i = 0; i < x.size(); ++i) want.push_back(x[i / 64 * 64 + (i + 1) % 64]);
  expect_equal(out.values(), want);
}

}  // namespace
}  // namespace lossk::test
