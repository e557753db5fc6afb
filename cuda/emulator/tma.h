// device/tma.h on a CPU.
#pragma once
#include "emulator/barrier.h"

namespace lossk::device {

LOSSK_DEVICE void tma_prefetch(const TensorMap* map) { emulator::prefetch_map(map); }

LOSSK_DEVICE void tma_load(void* to, const TensorMap* map, Mbarrier* b, int x, int y) {
  emulator::tma_load(shared_address(to), map, shared_address(b), 2, x, y, 0);
}
LOSSK_DEVICE void tma_load(void* to, const TensorMap* map, Mbarrier* b, int x, int y, int z) {
  emulator::tma_load(shared_address(to), map, shared_address(b), 3, x, y, z);
}
LOSSK_DEVICE void tma_multicast(void* to, const TensorMap* map, Mbarrier* b, int x, int y, uint16_t blocks) {
  emulator::tma_load(shared_address(to), map, shared_address(b), 2, x, y, 0, blocks);
}
LOSSK_DEVICE void tma_multicast(void* to, const TensorMap* map, Mbarrier* b, int x, int y, int z, uint16_t blocks) {
  emulator::tma_load(shared_address(to), map, shared_address(b), 3, x, y, z, blocks);
}
LOSSK_DEVICE void tma_store(const TensorMap* map, const void* from, int x, int y) {
  emulator::tma_store(map, shared_address(from), 2, x, y, 0, emulator::Store::copy);
}
LOSSK_DEVICE void tma_store(const TensorMap* map, const void* from, int x, int y, int z) {
  emulator::tma_store(map, shared_address(from), 3, x, y, z, emulator::Store::copy);
}
LOSSK_DEVICE void tma_reduce_add(const TensorMap* map, const void* from, int x, int y) {
  emulator::tma_store(map, shared_address(from), 2, x, y, 0, emulator::Store::add);
}
LOSSK_DEVICE void tma_reduce_add(const TensorMap* map, const void* from, int x, int y, int z) {
  emulator::tma_store(map, shared_address(from), 3, x, y, z, emulator::Store::add);
}

LOSSK_DEVICE void bulk_load(void* to, const void* from, int bytes, Mbarrier* b) {
  emulator::bulk_load(shared_address(to), from, bytes, shared_address(b));
}
LOSSK_DEVICE void bulk_store(void* to, const void* from, int bytes) {
  emulator::bulk_store(to, shared_address(from), bytes, emulator::Store::copy);
}
LOSSK_DEVICE void bulk_reduce_add(float* to, const void* from, int bytes) {
  emulator::bulk_store(to, shared_address(from), bytes, emulator::Store::add);
}

LOSSK_DEVICE void bulk_commit() { emulator::bulk_commit(); }
template <int groups>
LOSSK_DEVICE void bulk_wait_read() {
  emulator::bulk_wait(groups, false);
}
template <int groups>
LOSSK_DEVICE void bulk_wait() {
  emulator::bulk_wait(groups, true);
}

}  // namespace lossk::device
