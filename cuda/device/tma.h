// TMA: whole tiles between global and shared memory, by one thread, past the registers.
//
// Coordinates are (inner, outer): x runs along the contiguous dimension. What lies outside the tensor is read as zeros
// and not written. A load counts its whole box against the mbarrier, also where it is outside. Shared addresses are
// aligned to 128 bytes, to 1024 / 512 / 256 under the 128 / 64 / 32 byte swizzle; plain bulk copies to 16, in sizes
// of 16.
//
// Traps, as an H200 has them. A box, too, begins at a multiple of 16 bytes, x times the element's size, and what is
// stored not before the tensor: else it is an illegal instruction. Stores write 16 bytes at a time, and with them what
// lies between the end of a row and the next multiple of 16.
#pragma once
#include "device/barrier.h"

#ifndef __CUDACC__
#include "emulator/tma.h"
#else
namespace lossk::device {

// PTX ISA: data-movement-and-conversion-instructions-prefetch: the map itself, before the first copy needs it.
LOSSK_DEVICE void tma_prefetch(const TensorMap* map) { asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory"); }

// data-movement-and-conversion-instructions-cp-async-bulk-tensor
LOSSK_DEVICE void tma_load(void* to, const TensorMap* map, Mbarrier* b, int x, int y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(
          shared_address(to)),
      "l"(map), "r"(shared_address(b)), "r"(x), "r"(y)
      : "memory");
}
LOSSK_DEVICE void tma_load(void* to, const TensorMap* map, Mbarrier* b, int x, int y, int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::
          "r"(shared_address(to)),
      "l"(map), "r"(shared_address(b)), "r"(x), "r"(y), "r"(z)
      : "memory");
}
// Into every block of the cluster that `blocks` has a bit for, at the same place of each, counted on the mbarrier that
// each has at b's.
LOSSK_DEVICE void tma_multicast(void* to, const TensorMap* map, Mbarrier* b, int x, int y, uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
      " [%0], [%1, {%3, %4}], [%2], %5;" ::"r"(shared_address(to)),
      "l"(map), "r"(shared_address(b)), "r"(x), "r"(y), "h"(blocks)
      : "memory");
}
LOSSK_DEVICE void tma_multicast(void* to, const TensorMap* map, Mbarrier* b, int x, int y, int z, uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
      " [%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(shared_address(to)),
      "l"(map), "r"(shared_address(b)), "r"(x), "r"(y), "r"(z), "h"(blocks)
      : "memory");
}
LOSSK_DEVICE void tma_store(const TensorMap* map, const void* from, int x, int y) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];" ::"l"(map),
               "r"(shared_address(from)), "r"(x), "r"(y)
               : "memory");
}
LOSSK_DEVICE void tma_store(const TensorMap* map, const void* from, int x, int y, int z) {
  asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(map),
               "r"(shared_address(from)), "r"(x), "r"(y), "r"(z)
               : "memory");
}
// data-movement-and-conversion-instructions-cp-reduce-async-bulk-tensor: adds to global memory, in the map's type.
LOSSK_DEVICE void tma_reduce_add(const TensorMap* map, const void* from, int x, int y) {
  asm volatile("cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.bulk_group [%0, {%2, %3}], [%1];" ::"l"(map),
               "r"(shared_address(from)), "r"(x), "r"(y)
               : "memory");
}
LOSSK_DEVICE void tma_reduce_add(const TensorMap* map, const void* from, int x, int y, int z) {
  asm volatile("cp.reduce.async.bulk.tensor.3d.global.shared::cta.add.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(map),
               "r"(shared_address(from)), "r"(x), "r"(y), "r"(z)
               : "memory");
}

// data-movement-and-conversion-instructions-cp-async-bulk: `bytes` in a row, no map.
LOSSK_DEVICE void bulk_load(void* to, const void* from, int bytes, Mbarrier* b) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   shared_address(to)),
               "l"(from), "r"(bytes), "r"(shared_address(b))
               : "memory");
}
LOSSK_DEVICE void bulk_store(void* to, const void* from, int bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(shared_address(from)),
               "r"(bytes)
               : "memory");
}

// data-movement-and-conversion-instructions-cp-reduce-async-bulk
LOSSK_DEVICE void bulk_reduce_add(float* to, const void* from, int bytes) {
  asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(to),
               "r"(shared_address(from)), "r"(bytes)
               : "memory");
}

// Stores and reductions of this thread, in groups. Until at most `groups` still read shared memory; until at most
// `groups` are not written yet.
LOSSK_DEVICE void bulk_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
template <int groups>
LOSSK_DEVICE void bulk_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(groups) : "memory");
}
template <int groups>
LOSSK_DEVICE void bulk_wait() {
  asm volatile("cp.async.bulk.wait_group %0;" ::"n"(groups) : "memory");
}

}  // namespace lossk::device
#endif
