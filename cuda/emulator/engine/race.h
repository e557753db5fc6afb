// Races in shared and global memory, by vector clocks: independent of the schedule, one run shows them.
//
// Every thread of a cluster is an agent, and so is everything that works beside the threads: the cp.async copies of a
// thread, the matrix unit of a warpgroup, the copies that complete on one mbarrier, the bulk stores of a thread. A
// barrier, an mbarrier or a wait hands an agent's clock on. Two accesses to one place that no such chain orders are a
// race.
#pragma once
#include <algorithm>
#include <cstdint>
#include <map>
#include <vector>

#include "emulator/engine/call.h"

namespace lossk::emulator {

extern bool race_detection;  // set by tsan.cpp, which only the race build links

using Times = std::vector<uint32_t>;     // per agent of a cluster: its accesses up to here happened before
using Elsewhere = std::map<int, Times>;  // of other clusters, known through flags and atomics

inline void join(Times& into, const Times& from) {
  into.resize(std::max(into.size(), from.size()));
  for (size_t i = 0; i < from.size(); ++i) into[i] = std::max(into[i], from[i]);
}
inline void join(Elsewhere& into, const Elsewhere& from) {
  for (const auto& [cluster, times] : from) join(into[cluster], times);
}

struct Clock {
  Times seen;
  Times fenced;  // per agent: its ordinary stores up to here are visible to wgmma and TMA
  Elsewhere elsewhere;

  Clock() = default;
  explicit Clock(int agents) : seen(race_detection ? agents : 0), fenced(seen) {}
  void join(const Clock& other) {
    emulator::join(seen, other.seen);
    emulator::join(fenced, other.fenced);
    emulator::join(elsewhere, other.elsewhere);
  }
  void meet(const Clock& other) {  // what both know
    for (size_t i = 0; i < seen.size(); ++i) {
      seen[i] = std::min(seen[i], other.seen[i]);
      fenced[i] = std::min(fenced[i], other.fenced[i]);
    }
  }
  void learn(int agent, uint32_t time) {
    if (!seen.empty()) seen[agent] = std::max(seen[agent], time);
  }
  uint32_t at(int agent) const { return seen.empty() ? 0 : seen[agent]; }
};

enum class Access { read, write };
enum class Proxy { generic, async };  // the path to memory: ordinary instructions and cp.async, or wgmma and TMA

// Who accessed each two bytes of a block's shared memory last.
class Shadow {
 public:
  void resize(size_t bytes);
  // Reports the race that this access is in, if any.
  void access(int agent, const Clock& clock, uint32_t address, int bytes, Access, Proxy, const Call& call);

 private:
  static constexpr int kReaders = 4;  // more at a time may hide a race, and make none up
  struct Event {
    int agent = -1;
    uint32_t time = 0;
    const void* site = nullptr;
    const char* what = "";
  };
  struct Cell {
    Event writer, readers[kReaders];
    Proxy proxy = Proxy::generic;
    int next = 0;
  };
  const char* conflict(const Cell&, int agent, const Clock&, Access, Proxy, const Event*& other) const;
  std::vector<Cell> cells_;
};

}  // namespace lossk::emulator
