// Receives the calls that g++ -fsanitize=thread puts before every access of the kernel's source. Linked instead of
// libtsan, which knows threads and not fibers.
#include <cstddef>
#include <cstdint>

#include "emulator/engine/machine.h"

namespace {

const bool on = (lossk::emulator::race_detection = true);

void access(const void* p, size_t bytes, lossk::emulator::Access a, const void* site) {
  using namespace lossk::emulator;
  if (!running) return;
  Thread& t = *running;
  t.call.what = a == Access::read ? "a load" : "a store";
  t.call.site = site;
  const ptrdiff_t offset = static_cast<const char*>(p) - t.block->memory;
  if (offset >= t.block->begin && offset < t.block->end)
    touch(t, static_cast<uint32_t>(offset), static_cast<int>(bytes), a);
  else touch_global(*t.block, t.agent, t.clock, p, static_cast<int64_t>(bytes), a, t.call);
}

}  // namespace

#define LOSSK_SITE __builtin_return_address(0)
#define LOSSK_HOOK(bytes)                                                                                     \
  void __tsan_read##bytes(void* p) { access(p, bytes, lossk::emulator::Access::read, LOSSK_SITE); }           \
  void __tsan_write##bytes(void* p) { access(p, bytes, lossk::emulator::Access::write, LOSSK_SITE); }         \
  void __tsan_unaligned_read##bytes(void* p) { access(p, bytes, lossk::emulator::Access::read, LOSSK_SITE); } \
  void __tsan_unaligned_write##bytes(void* p) { access(p, bytes, lossk::emulator::Access::write, LOSSK_SITE); }

extern "C" {
LOSSK_HOOK(1)
LOSSK_HOOK(2)
LOSSK_HOOK(4)
LOSSK_HOOK(8)
LOSSK_HOOK(16)
void __tsan_read_range(void* p, size_t bytes) { access(p, bytes, lossk::emulator::Access::read, LOSSK_SITE); }
void __tsan_write_range(void* p, size_t bytes) { access(p, bytes, lossk::emulator::Access::write, LOSSK_SITE); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
}
