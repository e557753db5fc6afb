// cp.async: copies of 4 to 16 bytes that land between their issue and their wait.
#include <cstring>

#include "emulator/engine/machine.h"

namespace lossk::emulator {
namespace {

void perform(Thread& t, Copy& c) {
  if (c.done) return;
  c.done = true;
  ++counters.copies;
  char* to = shared(*t.block, c.to, c.bytes, c.bytes, c.call);
  if (c.valid) memcpy(to, c.from, c.bytes);
  else memset(to, 0, c.bytes);
  if (!race_detection) return;
  const int agent = t.block->copies_of(t);
  t.block->shadow.access(agent, c.clock, c.to, c.bytes, Access::write, Proxy::generic, c.call);
  if (c.valid) touch_global(*t.block, agent, c.clock, c.from, c.bytes, Access::read, c.call);
}

}  // namespace

void cp_async(uint32_t to, const void* from, int bytes, bool valid) {
  Thread& t = LOSSK_ENTER("cp_async");
  shared(*t.block, to, bytes, bytes, t.call);
  if (valid) check_global(from, bytes, bytes, t.call);
  else if (reinterpret_cast<uintptr_t>(from) % bytes) fail(t.call, "a source that is not read is aligned all the same");
  Copy& c = t.copies.emplace_back(Copy{t.copy_group, to, from, bytes, valid, false, t.clock, t.call});
  const int agent = t.block->copies_of(t);
  c.clock.learn(agent, t.block->tick(agent));
  if (now()) perform(t, c);
}

void cp_async_commit() { ++LOSSK_ENTER("cp_async_commit").copy_group; }

void cp_async_wait(int groups) {
  Thread& t = LOSSK_ENTER("cp_async_wait");
  const int agent = t.block->copies_of(t);
  std::erase_if(t.copies, [&](Copy& c) {
    if (c.group >= t.copy_group - groups) return false;
    perform(t, c);
    t.clock.learn(agent, c.clock.at(agent));
    return true;
  });
}

void copies_at_exit(Thread& t) {
  if (!t.copies.empty()) fail(t.copies.front().call, "the thread ended without waiting for this copy");
}

}  // namespace lossk::emulator
