// Collectives: who is named must come, to the same instruction; the last to come does it for all.
#include "emulator/engine/machine.h"

namespace lossk::emulator {
// The compiler may have made several copies of one line (an unrolled loop); those are the same instruction.
bool same_instruction(const Call& a, const Call& b) {
  return a.what == b.what && (a.site == b.site || source_line(a.site) == source_line(b.site));
}

void meet(Thread& t, uint32_t mask, const void* arguments, Execute execute) {
  Warp& w = *t.warp;
  if (!(mask >> t.lane & 1)) fail(t.call, text("the mask 0x%08x does not name the calling lane", mask));
  Meeting* meeting = nullptr;
  for (Meeting& m : w.meetings) {
    if (!(m.mask & mask)) continue;
    if (m.mask != mask || !same_instruction(t.call, {m.what, m.site, {}, 0}))
      fail(t.call, text("divergent warp: lanes 0x%08x are in %s at ", m.arrived, m.what) + source_line(m.site));
    meeting = &m;
  }
  if (const uint32_t ended = mask & ~w.alive)
    fail(t.call, text("the mask 0x%08x names lane %d, which has ended", mask, __builtin_ctz(ended)));
  if (!meeting) meeting = &w.meetings.emplace_back(Meeting{t.call.what, mask, 0, t.call.site, {}});
  meeting->arrived |= 1u << t.lane;
  meeting->arguments[t.lane] = arguments;
  if (meeting->arrived != mask) return block_running();
  const Meeting complete = *meeting;
  w.meetings.erase(w.meetings.begin() + (meeting - w.meetings.data()));
  ++counters.collectives;
  execute(w, complete);
  w.ready |= mask;
  end_turn();
}

void meet_group(Thread& t, const void* arguments, ExecuteGroup execute) {
  Block& b = *t.block;
  const size_t index = t.index / kWarpgroupThreads;
  if (index >= b.warpgroups.size()) fail(t.call, "not in a whole warpgroup of 128 threads");
  Warpgroup& g = b.warpgroups[index];
  if (g.arrived && !same_instruction(t.call, {g.what, g.site, {}, 0}))
    fail(t.call, text("divergent warpgroup: %d threads are in %s at ", g.arrived, g.what) + source_line(g.site));
  g.what = t.call.what;
  g.site = t.call.site;
  g.arguments[t.index % kWarpgroupThreads] = arguments;
  g.threads[t.index % kWarpgroupThreads] = &t;
  if (++g.arrived < kWarpgroupThreads) return block_running();
  g.arrived = 0;
  ++counters.collectives;
  execute(b, g);
  for (Thread* other : g.threads)
    if (other != &t) wake(*other);
}

int Block::agent_of(const void* owner) {
  const int first = first_agent + own_agents() - kExtraAgents;
  const auto [entry, is_new] =
      extra_agents.try_emplace(owner, first + static_cast<int>(extra_agents.size()) % kExtraAgents);
  return entry->second;
}

}  // namespace lossk::emulator
