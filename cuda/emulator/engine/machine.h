// The state of a launch: clusters, blocks, warps and threads, and what each waits for.
#pragma once
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "emulator/emulator.h"
#include "emulator/engine/call.h"
#include "emulator/engine/fiber.h"
#include "emulator/engine/race.h"

namespace lossk::emulator {

constexpr int kWarpLanes = 32, kWarpgroupThreads = 128, kMaxShared = 227 * 1024, kRegisterFile = 64 * 1024;

struct Block;
struct Warp;

// ---- copies.cpp, tma.cpp
struct Copy {  // one cp.async
  int group;
  uint32_t to;
  const void* from;
  int bytes;
  bool valid, done;
  Clock clock;
  Call call;
};
struct BulkStore {
  int group;
  bool read = false, written = false;
  TensorMap map;
  char* to;  // without a map
  uint32_t from;
  int bytes, at[3];
  Store what;
  std::vector<char> data;  // between read and written
  Clock clock;
  Call call;
};
struct BulkLoad {
  TensorMap map;
  const char* from;  // without a map
  uint32_t to, mbarrier;
  int bytes, at[3];
  Clock clock;
  Call call;
};

struct Thread {
  Fiber fiber;
  int index, lane;  // in the block, in the warp
  int agent;        // in the cluster
  Dim3 id;
  Block* block;
  Warp* warp;
  Call call;                           // the instruction it is in, or was in last
  uint32_t waits_for = 0, parity = 0;  // an mbarrier
  std::vector<Copy> copies;
  int copy_group = 0;
  std::deque<BulkStore> stores;
  int store_group = 0;
  Clock clock;
  Elsewhere published;  // what its last fence_device made known to whoever meets its atomics
  Elsewhere met;        // what atomics met, known only after the next fence_device
};

// Lanes on their way into one collective.
struct Meeting {
  const char* what;
  uint32_t mask, arrived = 0;
  const void* site;
  const void* arguments[kWarpLanes];
};
struct Warp {
  uint32_t alive = 0;    // lanes that have not ended
  uint32_t ready = 0;    // of them, those that can run
  uint32_t resting = 0;  // of them, those that found nothing when they polled: others go first
  uint32_t priority = 0;
  Thread* lanes[kWarpLanes] = {};
  std::vector<Meeting> meetings;
};

// ---- wgmma.cpp
struct Product {
  Wgmma operation;
  int group;
  bool done = false;
  std::vector<uint32_t> a;  // the operand from registers, four per thread
  Clock clock[4];           // of each warp
  Call call;
};
struct Accumulators {  // taken from their threads while the matrix unit owns them
  std::vector<float*> home;
  std::vector<float> value;
};
struct Warpgroup {
  const char* what = nullptr;
  const void* site = nullptr;
  const void* arguments[kWarpgroupThreads];
  Thread* threads[kWarpgroupThreads];
  int arrived = 0;
  bool fenced = false;
  int group = 0;
  int registers = 0;  // a thread's; at first an equal share
  std::deque<Product> products;
  std::map<float*, Accumulators> accumulators;  // by the first thread's
};

// ---- barriers.cpp
struct Barrier {
  int arrived = 0, expected = 0;
  std::vector<Thread*> waiting;
  Clock clock;
};
struct Mbarrier {
  int expected = 0, pending = 0;
  int64_t bytes = 0;  // still to come; below 0 where they came before they were announced
  uint32_t phase = 0;
  std::vector<Thread*> waiting;
  Clock arriving, completed;      // of this phase, of those before
  int agent = 0;                  // that copies count on this mbarrier under
  int maker = 0;                  // the thread that initialised it, and when
  uint32_t made = 0, fenced = 0;  // fenced: 0 for not yet
};

// Blocks that run at the same time and reach each other's shared memory: a launch without clusters has one in each.
struct Cluster {
  int number = 0;              // in the grid
  std::vector<Block*> blocks;  // null: has ended
  std::vector<Thread*> waiting;
  Clock clock;
};

struct Block {
  Dim3 id;
  int number = 0;  // in the grid
  std::shared_ptr<Cluster> cluster;
  int first_agent = 0;
  int alive = 0;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::vector<Warpgroup> warpgroups;
  Barrier barriers[16];
  std::map<uint32_t, Mbarrier> mbarriers;
  std::vector<BulkLoad> loads;  // on their way
  // Shared memory is exactly as large as asked for; addresses count from `memory`.
  char* memory = nullptr;
  uint32_t begin = 0, end = 0;
  Shadow shadow;
  std::vector<uint32_t> time;  // of each agent that is no thread
  std::map<const void*, int> extra_agents;

  int copies_of(const Thread& t) const { return first_agent + static_cast<int>(threads.size()) + t.index; }
  int unit_of(const Warpgroup& g) const {
    return first_agent + static_cast<int>(2 * threads.size() + (&g - warpgroups.data()));
  }
  int agent_of(const void* owner);  // of an mbarrier's loads, of a thread's stores
  int own_agents() const { return static_cast<int>(2 * threads.size() + warpgroups.size()) + kExtraAgents; }
  int agents() const { return own_agents() * static_cast<int>(cluster->blocks.size()); }  // of the cluster
  uint32_t tick(int agent) { return race_detection ? ++time[agent] : 0; }
  static constexpr int kExtraAgents = 64;
};

// ---- scheduler.cpp
extern Thread* running;  // null while the scheduler works
uint32_t random_bits();
bool now();  // does something asynchronous happen at once? drawn by the timing of the schedule
// Every call of a kernel begins with this.
Thread& enter(const char* what, const void* site);
void block_running();  // until somebody wakes it
void wake(Thread& t);
void end_turn();                   // of the warp that runs: another may go on
void pause_running(bool polling);  // let others go first; polling: nothing was achieved

#define LOSSK_ENTER(what) ::lossk::emulator::enter(what, __builtin_return_address(0))

// ---- memory.cpp
void make_shared(Block& b, int bytes);
void free_shared(Block& b);
char* shared(Block& b, uint32_t address, int64_t bytes, int alignment, const Call& call);

// ---- global.cpp
void begin_global();  // a launch: nothing in global memory is this launch's doing yet
void check_global(const void* p, int64_t bytes, int alignment, const Call& call);
// Reports a race with an access of another thread or block, if this is one.
void touch_global(
    const Block& b, int agent, const Clock& clock, const void* p, int64_t bytes, Access access, const Call& call,
    bool atomic = false);

// ---- barriers.cpp
Mbarrier& find_mbarrier(Block& b, uint32_t address, const Call& call);
void bytes_arrived(Mbarrier& m, int64_t bytes);
void release(Clock& to);  // what the running thread did is known to whom `to` is given
void end_of_thread(Thread& t);
Block& peer(Block& b, int rank, const Call& call);  // in its cluster
void go_on_if_all_wait(Cluster& c);                 // who waits for all of the cluster that have not ended
void copies_at_exit(Thread& t);
void stores_at_exit(Thread& t);
void products_at_exit(Thread& t);

// ---- tma.cpp: one copy on its way, if there is any
bool land_load(Block& b);

// ---- accesses to shared memory
inline void touch(Thread& t, uint32_t address, int bytes, Access a) {
  if (race_detection) t.block->shadow.access(t.agent, t.clock, address, bytes, a, Proxy::generic, t.call);
}

// ---- collectives.cpp
bool same_instruction(const Call& a, const Call& b);
using Execute = void (*)(Warp&, const Meeting&);
void meet(Thread& t, uint32_t mask, const void* arguments, Execute execute);
using ExecuteGroup = void (*)(Block&, Warpgroup&);
void meet_group(Thread& t, const void* arguments, ExecuteGroup execute);

}  // namespace lossk::emulator
