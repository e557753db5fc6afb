// Global memory: what of it exists, and who touches it beside whom. Clusters know of one another only through flags and
// atomics; what a launch before this one did is known to all.
#include <cstring>

#include "emulator/engine/machine.h"

namespace lossk::emulator {
namespace {

struct Event {
  int cluster = -1, agent = 0, block = 0;
  uint32_t time = 0;
  bool atomic = false;
  const void* site = nullptr;
  const char* what = "";
};
struct Cell {  // two bytes
  Event writer, readers[2];
};
struct Buffer {
  size_t bytes;
  std::vector<Cell> cells;  // of the launch that touched it last
  uint64_t launch = 0;
};

std::map<const char*, Buffer> buffers;
std::map<const void*, Elsewhere> flags;
uint64_t launch;

Buffer* find(const char* first, int64_t bytes, const char*& begin) {
  auto after = buffers.upper_bound(first);
  if (after == buffers.begin()) return nullptr;
  --after;
  begin = after->first;
  return first + bytes <= begin + after->second.bytes ? &after->second : nullptr;
}

bool ordered(const Event& e, const Block& b, int agent, const Clock& clock) {
  if (e.cluster < 0) return true;
  if (e.cluster == b.cluster->number) return e.agent == agent || clock.seen[e.agent] >= e.time;
  const auto known = clock.elsewhere.find(e.cluster);
  return known != clock.elsewhere.end() && known->second[e.agent] >= e.time;
}

// Everything a thread knows, as another cluster would say it.
Elsewhere knowledge(Thread& t) {
  Elsewhere all = t.clock.elsewhere;
  all[t.block->cluster->number] = t.clock.seen;
  if (race_detection) ++t.clock.seen[t.agent];
  return all;
}

void learn(Thread& t, const Elsewhere& from) {
  for (const auto& [cluster, times] : from)
    join(cluster == t.block->cluster->number ? t.clock.seen : t.clock.elsewhere[cluster], times);
}

void touch_word(Thread& t, const void* p, Access access) {
  if (race_detection) touch_global(*t.block, t.agent, t.clock, p, 4, access, t.call, true);
}

// A relaxed atomic carries what its thread's last fence published, and its thread learns at its next fence.
void meet_at(Thread& t, const void* p) {
  if (!race_detection) return;
  touch_word(t, p, Access::write);
  Elsewhere& flag = flags[p];
  join(t.met, flag);
  join(flag, t.published);
}

}  // namespace

void allow_global(const void* p, size_t bytes) { buffers[static_cast<const char*>(p)] = {bytes, {}, 0}; }
void forbid_global(const void* p) { buffers.erase(static_cast<const char*>(p)); }

void begin_global() {
  flags.clear();
  ++launch;
}

void check_global(const void* p, int64_t bytes, int alignment, const Call& call) {
  const char* begin;
  if (!find(static_cast<const char*>(p), bytes, begin))
    fail(call, text("%lld bytes at %p are outside every buffer", static_cast<long long>(bytes), p));
  if (reinterpret_cast<uintptr_t>(p) % alignment)
    fail(call, text("global address %p is not aligned to %d bytes", p, alignment));
}

void touch_global(
    const Block& b, int agent, const Clock& clock, const void* p, int64_t bytes, Access access, const Call& call,
    bool atomic) {
  if (!race_detection) return;
  const char* begin;
  Buffer* buffer = find(static_cast<const char*>(p), bytes, begin);
  if (!buffer) return;  // the stack; or outside, which is AddressSanitizer's
  if (buffer->launch != launch) {
    buffer->cells.assign(buffer->bytes / 2 + 1, {});
    buffer->launch = launch;
  }
  const int64_t first = static_cast<const char*>(p) - begin;
  for (int64_t i = first / 2; i <= (first + bytes - 1) / 2; ++i) {
    Cell& c = buffer->cells[i];
    const Event* other = nullptr;
    const auto conflicts = [&](const Event& e) { return !(e.atomic && atomic) && !ordered(e, b, agent, clock); };
    if (conflicts(c.writer)) other = &c.writer;
    if (access == Access::write)
      for (const Event& r : c.readers)
        if (conflicts(r)) other = &r;
    if (other) {
      report(
          "race: " + call.where() + text(" and, unordered, %s at ", other->what) + source_line(other->site) +
          text(" of block number %d, in global memory", other->block));
      return;
    }
    const Event event{b.cluster->number, agent, b.number, clock.at(agent), atomic, call.site, call.what};
    if (access == Access::write) {
      c = {event, {}};
      continue;
    }
    Event* place = &c.readers[random_bits() % 2];
    for (Event& r : c.readers)
      if (ordered(r, b, agent, clock)) place = &r;
    *place = event;
  }
}

void fence_device() {
  Thread& t = LOSSK_ENTER("fence_device");
  pause_running(false);
  learn(t, t.met);
  t.met.clear();
  t.published = knowledge(t);
}

// One host thread runs all blocks, so that these are atomic by nature; each is a place to switch.
uint32_t atomic(void* p, uint32_t (*change)(uint32_t, uint32_t, uint32_t), uint32_t x, uint32_t y) {
  Thread& t = LOSSK_ENTER("atomic");
  check_global(p, 4, 4, t.call);
  pause_running(false);
  meet_at(t, p);
  uint32_t old;
  memcpy(&old, p, 4);
  const uint32_t changed = change(old, x, y);
  memcpy(p, &changed, 4);
  return old;
}

void store_release(uint32_t* p, uint32_t x) {
  Thread& t = LOSSK_ENTER("store_release");
  check_global(p, 4, 4, t.call);
  pause_running(false);
  touch_word(t, p, Access::write);
  join(flags[p], knowledge(t));
  *p = x;
}

uint32_t load_acquire(const uint32_t* p) {
  Thread& t = LOSSK_ENTER("load_acquire");
  check_global(p, 4, 4, t.call);
  pause_running(true);
  touch_word(t, p, Access::read);
  learn(t, flags[p]);
  return *p;
}

void backoff() {
  LOSSK_ENTER("backoff");
  pause_running(true);
}

// Kernels run one after another here, whatever they say.
void launch_dependents() { LOSSK_ENTER("launch_dependents"); }
void wait_for_grids() { LOSSK_ENTER("wait_for_grids"); }

}  // namespace lossk::emulator
