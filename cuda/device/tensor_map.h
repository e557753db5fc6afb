// From the host: what TMA is told about a tensor.
#pragma once
#include "device/swizzle.h"

namespace lossk::device {

// A tensor of `rank` dimensions, the contiguous one first. Strides in elements; stride[0] is 1 and not looked at.
struct Tensor {
  const void* data;  // aligned to 16 bytes
  Element element;
  int rank;  // 2 or 3
  int64_t size[3];
  int64_t stride[3];  // of the others: multiples of 16 bytes
};

// The rules of cuTensorMapEncodeTiled, and one of ours: a box is as wide as the swizzle, which keeps its rows dense.
inline bool can_map(const Tensor& t, const int (&box)[3], Swizzle swizzle) {
  const int bytes = element_bytes(t.element);
  if (t.rank < 2 || t.rank > 3 || reinterpret_cast<uintptr_t>(t.data) % 16) return false;
  for (int i = 0; i < t.rank; ++i) {
    if (t.size[i] < 1 || t.size[i] > int64_t{1} << 32 || box[i] < 1 || box[i] > 256) return false;
    if (i && (t.stride[i] * bytes % 16 || t.stride[i] * bytes >= int64_t{1} << 40 || t.stride[i] < 1)) return false;
  }
  const int width = box[0] * bytes;
  return width % 16 == 0 && (swizzle == Swizzle::none || width == swizzle_width(swizzle));
}

#ifdef __CUDACC__

// Found at run time, so that the library loads where there is no driver.
[[nodiscard]] inline cudaError_t make_tensor_map(
    TensorMap* map, const Tensor& t, const int (&box)[3], Swizzle swizzle) {
  if (!can_map(t, box, swizzle)) return cudaErrorInvalidValue;
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
  const auto error =
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found);
  if (error != cudaSuccess) return error;
  if (found != cudaDriverEntryPointSuccess) return cudaErrorNotSupported;

  constexpr CUtensorMapDataType kTypes[] = {
      CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
      CU_TENSOR_MAP_DATA_TYPE_TFLOAT32};
  // Trap: the driver numbers swizzles the other way round than descriptors do.
  constexpr CUtensorMapSwizzle kSwizzles[] = {
      CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_SWIZZLE_64B, CU_TENSOR_MAP_SWIZZLE_32B};
  cuuint64_t sizes[3], strides[2];
  cuuint32_t boxes[3], steps[3] = {1, 1, 1};
  for (int i = 0; i < t.rank; ++i) {
    sizes[i] = t.size[i];
    boxes[i] = box[i];
    if (i) strides[i - 1] = t.stride[i] * element_bytes(t.element);
  }
  const auto result = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function)(
      map, kTypes[static_cast<int>(t.element)], t.rank, const_cast<void*>(t.data), sizes, strides, boxes, steps,
      CU_TENSOR_MAP_INTERLEAVE_NONE, kSwizzles[static_cast<int>(swizzle)], CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

#else

[[nodiscard]] inline cudaError_t make_tensor_map(
    TensorMap* map, const Tensor& t, const int (&box)[3], Swizzle swizzle) {
  if (!can_map(t, box, swizzle)) return cudaErrorInvalidValue;
  *map = {};
  map->base = static_cast<char*>(const_cast<void*>(t.data));
  map->element = t.element;
  map->rank = t.rank;
  map->swizzle = static_cast<int>(swizzle);
  for (int i = 0; i < 3; ++i) {
    map->size[i] = i < t.rank ? t.size[i] : 1;
    map->stride[i] = i < t.rank ? t.stride[i] * element_bytes(t.element) : 0;
    map->box[i] = i < t.rank ? box[i] : 1;
  }
  return cudaSuccess;
}

#endif

}  // namespace lossk::device
