// Shared memory of a block.
#include <cstdlib>
#include <cstring>
#include <new>

#include "emulator/engine/machine.h"

extern "C" {
void __asan_poison_memory_region(const volatile void*, size_t) __attribute__((weak));
void __asan_unpoison_memory_region(const volatile void*, size_t) __attribute__((weak));
}

namespace lossk::emulator {
namespace {

constexpr uint32_t kFirst = 1024;  // 0 is no address

}  // namespace

void make_shared(Block& b, int bytes) {
  b.begin = kFirst + schedule.skew;
  b.end = b.begin + bytes;
  b.memory = static_cast<char*>(std::aligned_alloc(1024, (b.end + 1023) / 1024 * 1024));
  if (!b.memory) throw std::bad_alloc();
  memset(b.memory, 0xff, b.end);  // nan to whoever reads it first
  if (__asan_poison_memory_region) {
    __asan_poison_memory_region(b.memory, b.begin / 8 * 8);
    __asan_poison_memory_region(b.memory + b.end, (b.end + 1023) / 1024 * 1024 - b.end);
  }
  b.shadow.resize(b.end);
}

void free_shared(Block& b) {
  if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(b.memory, (b.end + 1023) / 1024 * 1024);
  std::free(b.memory);
  b.memory = nullptr;
}

unsigned char* dynamic_shared() {
  const Block& b = *running->block;
  return reinterpret_cast<unsigned char*>(b.memory) + b.begin;
}

uint32_t shared_address(const void* p) {
  Thread& t = LOSSK_ENTER("shared_address");
  const ptrdiff_t offset = static_cast<const char*>(p) - t.block->memory;
  // One past the end is a legal address; using it is not.
  if (offset < t.block->begin || offset > t.block->end) fail(t.call, "the pointer is not into shared memory");
  return static_cast<uint32_t>(offset);
}

char* shared(Block& b, uint32_t address, int64_t bytes, int alignment, const Call& call) {
  if (address < b.begin || address + bytes > b.end)
    fail(
        call, text(
                  "%lld bytes at shared address 0x%x are outside [0x%x, 0x%x)", static_cast<long long>(bytes), address,
                  b.begin, b.end));
  if (address % alignment) fail(call, text("shared address 0x%x is not aligned to %d bytes", address, alignment));
  return b.memory + address;
}

}  // namespace lossk::emulator
