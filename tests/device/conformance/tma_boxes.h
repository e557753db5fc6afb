// Tensors, boxes of them, and where a box's elements belong: what the TMA tests are made of.
#pragma once
#include <algorithm>
#include <array>

#include "device/conformance/helpers.h"
#include "device/tensor_map.h"
#include "device/tma.h"

namespace lossk::test {

constexpr int kBoxThreads = 64;

// A tensor of which each outer dimension is padded; it ends with its last element.
template <class T>
struct Padded {
  int rank;
  std::array<int, 3> size;
  std::array<int, 3> stride{};  // elements

  Padded(int rank, std::array<int, 3> wanted) : rank(rank), size(wanted) {
    constexpr int kStep = 16 / sizeof(T);
    if (rank < 3) size[2] = 1;
    stride = {1, (size[0] / kStep + 2) * kStep, 0};
    stride[2] = stride[1] * (size[1] + 1);
  }
  int elements() const { return size[0] + (size[1] - 1) * stride[1] + (size[2] - 1) * stride[2]; }
  // The element at these coordinates, or -1 outside.
  int index(int x, int y, int z) const {
    if (x < 0 || x >= size[0] || y < 0 || y >= size[1] || z < 0 || z >= size[2]) return -1;
    return x + y * stride[1] + z * stride[2];
  }
  TensorMap map(const T* data, const std::array<int, 3>& box, Swizzle swizzle, Element element) const {
    const Tensor t{data, element, rank, {size[0], size[1], size[2]}, {1, stride[1], stride[2]}};
    TensorMap m;
    check(make_tensor_map(&m, t, {box[0], box[1], box[2]}, swizzle), "make_tensor_map");
    return m;
  }
};

// A box that fits the swizzle, at some place of a tensor.
struct Case {
  int rank;
  Swizzle swizzle;
  std::array<int, 3> box, at;
  int elements() const { return box[0] * box[1] * box[2]; }
  std::string name() const {
    std::string text = "swizzle " + std::to_string(static_cast<int>(swizzle)) + ", at";
    for (int i = 0; i < rank; ++i) text += " " + std::to_string(at[i]);
    return text;
  }
};

// f(element of the box as it lies in shared memory, index in the tensor or -1).
template <class T, class F>
void for_each_element(const Padded<T>& tensor, const Case& c, F f) {
  int i = 0;
  for (int z = 0; z < c.box[2]; ++z)
    for (int y = 0; y < c.box[1]; ++y)
      for (int x = 0; x < c.box[0]; ++x, ++i)
        f(place_under(c.swizzle, i * sizeof(T)) / sizeof(T), tensor.index(c.at[0] + x, c.at[1] + y, c.at[2] + z));
}

// Boxes inside, over each edge, over a corner, and outside, of all swizzles; all begin at a multiple of 16 bytes.
template <class T>
std::vector<Case> cases(int rank, const Padded<T>& tensor) {
  std::vector<Case> all;
  for (const Swizzle s : kSwizzles) {
    const int width = s == Swizzle::none ? 80 : kWidths[static_cast<int>(s)];
    const std::array<int, 3> box{width / static_cast<int>(sizeof(T)), rank == 3 ? 5 : 16, rank == 3 ? 3 : 1};
    const auto& size = tensor.size;
    constexpr int kStep = 16 / sizeof(T);
    const int end = size[0] / kStep * kStep;
    for (const std::array<int, 3> at : std::vector<std::array<int, 3>>{
             {kStep, 2, 1},
             {-kStep, 1, 0},
             {0, -3, -1},
             {end - kStep, 4, 0},
             {2 * kStep, size[1] - 2, size[2] - 1},
             {-box[0] + kStep, size[1] - 1, -2},
             {end + kStep, 0, 0},
             {0, -100, 1},
             {random_integer(-2, end / kStep) * kStep, random_integer(-9, size[1]), random_integer(-2, size[2])}})
      all.push_back({rank, s, box, {at[0], at[1], rank == 3 ? at[2] : 0}});
  }
  return all;
}

// A place for a box in shared memory, no better aligned than it must be; behind it is room for an mbarrier.
LOSSK_DEVICE unsigned char* box_place(unsigned char* raw, int alignment) {
  return align_shared<1024>(raw, shared_address(raw)) + alignment;
}
inline int shared_for(int bytes) { return 2 * 1024 + (bytes + 15) / 16 * 16 + 16; }

LOSSK_DEVICE void fill_words(unsigned char* to, const void* from, int bytes) {
  for (int i = threadIdx.x; i < bytes / 4; i += kBoxThreads)
    reinterpret_cast<uint32_t*>(to)[i] = static_cast<const uint32_t*>(from)[i];
}
LOSSK_DEVICE void write_words(void* to, const unsigned char* from, int bytes) {
  for (int i = threadIdx.x; i < bytes / 4; i += kBoxThreads)
    static_cast<uint32_t*>(to)[i] = reinterpret_cast<const uint32_t*>(from)[i];
}

}  // namespace lossk::test
