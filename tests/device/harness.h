// Tests of device code, one source for a GPU (nvcc) and for the emulator (g++): buffers, launches, expectations.
//
// A test throws where it fails. On a GPU it runs once, in the emulator under several schedules.
#pragma once
#include <cstdint>
#include <cstring>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "device/launch.h"
#include "device/platform.h"

namespace lossk::test {

using namespace device;  // what the tests are about

struct Failure : std::runtime_error {
  using runtime_error::runtime_error;
};

std::mt19937& random_source();  // the schedule's seed and the test's name decide what it draws
inline int random_integer(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_source()); }

struct Registration {
  Registration(const char* name, const char* file, void (*body)());
};
#define LOSSK_TEST(name)                                                                  \
  static void test_##name();                                                              \
  static const ::lossk::test::Registration register_##name(#name, __FILE__, test_##name); \
  static void test_##name()

// ---- global memory, exactly as large as asked for
void* allocate(size_t bytes);
void release(void* p);
void copy_to_device(void* to, const void* from, size_t bytes);
void copy_to_host(void* to, const void* from, size_t bytes);

template <class T>
class Buffer {
 public:
  explicit Buffer(const std::vector<T>& values)
      : size_(values.size()), data_(static_cast<T*>(allocate(size_ * sizeof(T)))) {
    copy_to_device(data_, values.data(), size_ * sizeof(T));
  }
  // Poisoned: what a kernel leaves unwritten is nan, or -1.
  explicit Buffer(size_t size) : Buffer(poison(size)) {}
  Buffer(const Buffer&) = delete;
  ~Buffer() { release(data_); }

  T* data() const { return data_; }
  size_t size() const { return size_; }
  std::vector<T> values() const {
    std::vector<T> result(size_);
    copy_to_host(result.data(), data_, size_ * sizeof(T));
    return result;
  }

 private:
  static std::vector<T> poison(size_t size) {
    std::vector<T> values(size);
    if (size) memset(static_cast<void*>(values.data()), 0xff, size * sizeof(T));
    return values;
  }
  size_t size_;
  T* data_;
};

// ---- launches: wait for the end, throw on any error
void check(cudaError_t error, const char* what);
void synchronize();

template <class... Parameters>
void run(void (*kernel)(Parameters...), const Launch& l, const std::type_identity_t<Parameters>&... parameters) {
  check(launch(kernel, l, parameters...), "launch");
  synchronize();
}

// ---- expectations
[[noreturn]] void fail(const std::string& problem);

inline void expect(bool holds, const std::string& problem) {
  if (!holds) fail(problem);
}

template <class T>
void expect_equal(const std::vector<T>& got, const std::vector<T>& want, const char* name = "result") {
  expect(got.size() == want.size(), std::string(name) + ": other sizes");
  for (size_t i = 0; i < got.size(); ++i)
    if (!(got[i] == want[i]))
      fail(
          std::string(name) + "[" + std::to_string(i) + "] is " + std::to_string(got[i]) + ", not " +
          std::to_string(want[i]));
}

// ---- numbers: small integers are exact in every format
inline Bf16 bf16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
Fp16 fp16(float x);
inline float to_float(float x) { return x; }
inline float to_float(Bf16 x) {
  const uint32_t bits = uint32_t{x.bits} << 16;
  float y;
  memcpy(&y, &bits, 4);
  return y;
}
float to_float(Fp16 x);

template <class T>
T from_float(float x) {
  if constexpr (std::is_same_v<T, Bf16>) return bf16(x);
  else if constexpr (std::is_same_v<T, Fp16>) return fp16(x);
  else return x;
}

template <class T>
std::vector<T> random_integers(size_t size, int low = -4, int high = 4) {
  std::vector<T> values(size);
  for (T& x : values) x = from_float<T>(static_cast<float>(random_integer(low, high)));
  return values;
}

// Normally distributed, times `scale`.
template <class T>
std::vector<T> random_matrix(size_t size, float scale) {
  std::normal_distribution<float> normal;
  std::vector<T> values(size);
  for (T& x : values) x = from_float<T>(scale * normal(random_source()));
  return values;
}

template <class T>
std::vector<float> to_floats(const std::vector<T>& values) {
  std::vector<float> result;
  for (const T& x : values) result.push_back(to_float(x));
  return result;
}

}  // namespace lossk::test
