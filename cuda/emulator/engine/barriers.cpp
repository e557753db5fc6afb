// Barriers of a block and of a cluster, mbarriers, fences, and the registers a warpgroup holds.
#include <cstring>

#include "emulator/engine/machine.h"

namespace lossk::emulator {
namespace {

// An mbarrier's state is kept beside it; in memory lies a mark, so that overwriting it is noticed.
constexpr uint64_t kMark = 0x6d62617272696572;

void arrive(Thread& t, int id, int threads, bool waits) {
  Barrier& b = t.block->barriers[id];
  if (b.arrived && b.expected != threads)
    fail(t.call, text("barrier %d of %d threads, but others said %d", id, threads, b.expected));
  if (waits)  // the instruction is aligned: a warp's lanes come to it together
    for (const Thread* w : b.waiting)
      if (w->warp == t.warp && !same_instruction(w->call, t.call))
        fail(
            t.call, text("divergent warp: lane %d waits in %s at ", w->lane, w->call.what) + source_line(w->call.site));
  b.expected = threads;
  release(b.clock);
  if (waits) b.waiting.push_back(&t);
  if (++b.arrived < threads) {
    if (waits) block_running();
    return;
  }
  for (Thread* w : b.waiting) {
    w->clock.join(b.clock);
    wake(*w);
  }
  b.waiting.clear();
  b.arrived = 0;
  b.clock = Clock(t.block->agents());
}

void arrive_named(Thread& t, int id, int threads, bool waits) {
  if (id < 1 || id > 15 || threads <= 0 || threads % kWarpLanes)
    fail(t.call, text("barrier %d of %d threads: ids are 1 to 15, threads a multiple of 32", id, threads));
  arrive(t, id, threads, waits);
}

void complete_if_due(Mbarrier& m) {
  if (m.pending || m.bytes) return;
  ++m.phase;
  m.pending = m.expected;
  m.completed.join(m.arriving);
  for (Thread* t : m.waiting) wake(*t);
  m.waiting.clear();
}

}  // namespace

void release(Clock& to) {
  to.join(running->clock);
  if (race_detection) ++running->clock.seen[running->agent];
}

void sync_block() {
  Thread& t = LOSSK_ENTER("sync_block");
  arrive(t, 0, static_cast<int>(t.block->threads.size()), true);
}

void barrier_sync(int id, int threads) { arrive_named(LOSSK_ENTER("barrier_sync"), id, threads, true); }
void barrier_arrive(int id, int threads) { arrive_named(LOSSK_ENTER("barrier_arrive"), id, threads, false); }

Mbarrier& find_mbarrier(Block& b, uint32_t address, const Call& call) {
  uint64_t mark;
  memcpy(&mark, shared(b, address, 8, 8, call), 8);
  auto found = b.mbarriers.find(address);
  if (found == b.mbarriers.end() || mark != (kMark ^ address))
    fail(call, text("no mbarrier at shared address 0x%x: not initialised, or overwritten", address));
  Mbarrier& m = found->second;
  if (race_detection && running && running->clock.seen[m.maker] < m.made)
    report("race: " + call.where() + " uses an mbarrier whose initialisation no barrier ordered before");
  return m;
}

void mbarrier_init(uint32_t address, int arrivals) {
  Thread& t = LOSSK_ENTER("mbarrier_init");
  if (arrivals < 1 || arrivals >= 1 << 20) fail(t.call, text("an mbarrier of %d arrivals: 1 to 2^20 - 1", arrivals));
  const uint64_t mark = kMark ^ address;
  memcpy(shared(*t.block, address, 8, 8, t.call), &mark, 8);
  Mbarrier& m = t.block->mbarriers[address] = {};
  m.expected = m.pending = arrivals;
  m.arriving = m.completed = Clock(t.block->agents());
  m.agent = t.block->agent_of(&m);
  m.maker = t.agent;
  m.made = t.clock.at(t.agent);
}

void mbarrier_invalidate(uint32_t address) {
  Thread& t = LOSSK_ENTER("mbarrier_invalidate");
  if (!find_mbarrier(*t.block, address, t.call).waiting.empty()) fail(t.call, "threads wait on this mbarrier");
  t.block->mbarriers.erase(address);
}

namespace {

void arrive(Thread& t, Block& b, uint32_t address, int bytes) {
  Mbarrier& m = find_mbarrier(b, address, t.call);
  if (m.pending == 0) fail(t.call, text("more arrivals than the mbarrier's %d in phase %u", m.expected, m.phase));
  m.bytes += bytes;
  if (bytes < 0 || m.bytes >= 1 << 20) fail(t.call, text("%d bytes: below 2^20 in all", bytes));
  release(m.arriving);
  --m.pending;
  complete_if_due(m);
}

}  // namespace

void mbarrier_arrive(uint32_t address, int bytes) {
  Thread& t = LOSSK_ENTER(bytes ? "mbarrier_arrive_expect" : "mbarrier_arrive");
  arrive(t, *t.block, address, bytes);
}
void mbarrier_arrive_at(uint32_t address, int rank) {
  Thread& t = LOSSK_ENTER("mbarrier_arrive_at");
  arrive(t, peer(*t.block, rank, t.call), address, 0);
}

void bytes_arrived(Mbarrier& m, int64_t bytes) {
  m.bytes -= bytes;
  complete_if_due(m);
}

bool mbarrier_try_wait(uint32_t address, uint32_t parity) {
  Thread& t = LOSSK_ENTER("mbarrier_try_wait");
  Mbarrier& m = find_mbarrier(*t.block, address, t.call);
  t.waits_for = address;
  t.parity = parity;
  if ((m.phase & 1) == parity) {
    pause_running(true);
    return false;
  }
  t.clock.join(m.completed);
  return true;
}

void mbarrier_wait(uint32_t address, uint32_t parity) {
  Thread& t = LOSSK_ENTER("mbarrier_wait");
  if (parity > 1) fail(t.call, text("parity %u", parity));
  Mbarrier& m = find_mbarrier(*t.block, address, t.call);
  t.waits_for = address;
  t.parity = parity;
  while ((m.phase & 1) == parity) {
    m.waiting.push_back(&t);
    block_running();
  }
  t.clock.join(m.completed);
}

// Ordinary stores by this thread, and its cp.async copies that it has waited for.
void fence_proxy_async() {
  Thread& t = LOSSK_ENTER("fence_proxy_async");
  if (!race_detection) return;
  for (int agent : {t.agent, t.block->copies_of(t)}) t.clock.fenced[agent] = t.clock.seen[agent];
}
void fence_mbarrier_init() {
  Thread& t = LOSSK_ENTER("fence_mbarrier_init");
  for (auto& [address, m] : t.block->mbarriers)
    if (m.maker == t.agent) m.fenced = t.clock.at(t.agent);
}

Block& peer(Block& b, int rank, const Call& call) {
  const auto& blocks = b.cluster->blocks;
  if (rank < 0 || rank >= static_cast<int>(blocks.size()))
    fail(call, text("block %d of a cluster of %zu", rank, blocks.size()));
  if (!blocks[rank]) fail(call, text("block %d of the cluster has ended, and with it its shared memory", rank));
  return *blocks[rank];
}

int cluster_size() { return static_cast<int>(running->block->cluster->blocks.size()); }
int cluster_rank() {
  const auto& blocks = running->block->cluster->blocks;
  return static_cast<int>(std::find(blocks.begin(), blocks.end(), running->block) - blocks.begin());
}

void go_on_if_all_wait(Cluster& c) {
  size_t alive = 0;
  for (const Block* b : c.blocks) alive += b ? b->alive : 0;
  if (c.waiting.size() < alive) return;
  for (Thread* t : c.waiting) {
    t->clock.join(c.clock);
    wake(*t);
  }
  c.waiting.clear();
}

void sync_cluster() {
  Thread& t = LOSSK_ENTER("sync_cluster");
  Cluster& c = *t.block->cluster;
  release(c.clock);
  c.waiting.push_back(&t);
  go_on_if_all_wait(c);
  if (!c.waiting.empty()) block_running();
}

namespace {

struct RegisterRequest {
  int registers;
  bool increase;
};

// An increase waits until others have let go of enough; where nobody does, that is a livelock.
void all_set_registers(Block& b, Warpgroup& g) {
  const auto& request = *static_cast<const RegisterRequest*>(g.arguments[0]);
  const Call& call = g.threads[0]->call;
  if (request.increase ? request.registers < g.registers : request.registers > g.registers)
    fail(call, text("from %d to %d registers", g.registers, request.registers));
  const auto in_use = [&] {
    int total = 0;
    for (const Warpgroup& each : b.warpgroups)
      total += kWarpgroupThreads * (&each == &g ? request.registers : each.registers);
    return total;
  };
  while (in_use() > kRegisterFile) pause_running(true);
  g.registers = request.registers;
}

}  // namespace

void set_registers(int registers, bool increase) {
  const RegisterRequest request{registers, increase};
  meet_group(LOSSK_ENTER(increase ? "increase_registers" : "decrease_registers"), &request, all_set_registers);
}

void end_of_thread(Thread& t) {
  for (const Meeting& m : t.warp->meetings)
    if (m.mask >> t.lane & 1)
      fail(t.call, text("lanes 0x%08x wait for this one in %s at ", m.arrived, m.what) + source_line(m.site));
  copies_at_exit(t);
  stores_at_exit(t);
  products_at_exit(t);
}

}  // namespace lossk::emulator
