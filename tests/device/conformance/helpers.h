// What the conformance tests share.
#pragma once
#include "device/harness.h"
#include "device/swizzle.h"

namespace lossk::test {

inline Launch blocks_of(int blocks, int threads, int shared_bytes = 0) {
  return {dim3(blocks), threads, shared_bytes, nullptr};
}

// Each thread hands in a number and gets what F makes of it.
template <class F, class In, class Out>
__global__ void each_thread(const In* in, Out* out, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) out[i] = F()(in[i]);
}
template <class F, class Out, class In>
std::vector<Out> on_threads(const std::vector<In>& in) {
  const int count = static_cast<int>(in.size());
  Buffer<In> from(in);
  Buffer<Out> to(in.size());
  run(each_thread<F, In, Out>, blocks_of((count + 127) / 128, 128), from.data(), to.data(), count);
  return to.values();
}

inline std::vector<uint32_t> random_bits(size_t size) {
  std::vector<uint32_t> x(size);
  for (uint32_t& each : x) each = random_source()();
  return x;
}

// The order of 0 .. size - 1 that chance gives.
inline std::vector<int> random_order(int size) {
  std::vector<int> order(size);
  for (int i = 0; i < size; ++i) {
    const int j = random_integer(0, i);
    order[i] = order[j];
    order[j] = i;
  }
  return order;
}

constexpr Swizzle kSwizzles[] = {Swizzle::none, Swizzle::bytes128, Swizzle::bytes64, Swizzle::bytes32};

// PTX ISA: tensor-swizzling-modes, as its pictures show it: where the eight 16-byte chunks of each 128-byte line lie.
// After 8, 4 or 2 lines the pattern begins again.
inline uint32_t place_under(Swizzle s, uint32_t address) {
  constexpr char kPlaces[8][9] = {"01234567", "10325476", "23016745", "32107654",
                                  "45670123", "54761032", "67452301", "76543210"};
  constexpr int kLines[] = {1, 8, 4, 2};
  const int line = address / 128 % kLines[static_cast<int>(s)];
  return address / 128 * 128 + (kPlaces[line][address % 128 / 16] - '0') * 16 + address % 16;
}
constexpr int kWidths[] = {16, 128, 64, 32};  // of a tile's row in bytes, by swizzle

}  // namespace lossk::test
