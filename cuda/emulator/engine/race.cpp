#include "emulator/engine/race.h"

#include "emulator/emulator.h"

namespace lossk::emulator {

bool race_detection = false;
bool detects_races() { return race_detection; }

void Shadow::resize(size_t bytes) {
  if (race_detection) cells_.assign(bytes / 2 + 1, {});
}

const char* Shadow::conflict(
    const Cell& c, int agent, const Clock& clock, Access access, Proxy proxy, const Event*& other) const {
  const Event& w = c.writer;
  other = &w;
  if (w.agent < 0) {
    if (access == Access::read) return "reads shared memory that nothing has written";
  } else if (w.agent != agent) {
    if (clock.seen[w.agent] < w.time)
      return access == Access::write ? "writes where an unordered write was" : "reads what an unordered write wrote";
    if (proxy == Proxy::async && c.proxy == Proxy::generic && clock.fenced[w.agent] < w.time)
      return "comes after an ordinary write that no fence_proxy_async followed";
  }
  if (access == Access::write)
    for (const Event& r : c.readers)
      if (r.agent >= 0 && r.agent != agent && clock.seen[r.agent] < r.time) {
        other = &r;
        return "writes what an unordered read reads";
      }
  return nullptr;
}

void Shadow::access(
    int agent, const Clock& clock, uint32_t address, int bytes, Access access, Proxy proxy, const Call& call) {
  for (uint32_t i = address / 2; i <= (address + bytes - 1) / 2; ++i) {
    Cell& c = cells_[i];
    const Event* other = nullptr;
    if (const char* problem = conflict(c, agent, clock, access, proxy, other)) {
      std::string line = "race: " + call.where() + " " + problem;
      if (other->agent >= 0) line += text(", %s at ", other->what) + source_line(other->site);
      report(line + text(" (shared address 0x%x)", 2 * i));
      return;  // one of its bytes says enough
    }
    const Event event{agent, clock.at(agent), call.site, call.what};
    if (access == Access::write) {
      c = {event, {}, proxy, 0};
      continue;
    }
    Event* place = nullptr;
    for (Event& r : c.readers)
      if (r.agent < 0 || r.agent == agent || clock.seen[r.agent] >= r.time) place = &r;
    if (!place) place = &c.readers[c.next++ % kReaders];
    *place = event;
  }
}

}  // namespace lossk::emulator
