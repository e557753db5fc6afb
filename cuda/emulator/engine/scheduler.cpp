// Runs a grid: which clusters are resident, which lane is next, and what it means when none is.
#include <cstring>
#include <numeric>

#include "emulator/engine/machine.h"

namespace lossk::emulator {

Dim3 threadIdx, blockIdx, blockDim, gridDim;
Schedule schedule;
Counters counters;
Thread* running = nullptr;

namespace {

// A launch in which every thread that can run only polls will not end. So many switches without anything achieved are
// more than any schedule needs.
constexpr uint64_t kPatience = 2000;

Body body;
const void* body_argument;
uint64_t random_state;
std::string problems;  // reported so far
int reports;
bool failed;
uint64_t idle_switches;
std::vector<std::unique_ptr<Block>> active;
Warp* turn;  // whose lanes go on until they have met: to others it matters little which of them come first
bool block_ended;

bool shuffled() { return schedule.order == Order::random || schedule.order == Order::priority; }

void thread_entry() {
  body(body_argument);
  Thread& t = *running;
  t.call.what = "exit";
  end_of_thread(t);
  block_ended |= --t.block->alive == 0;
  go_on_if_all_wait(*t.block->cluster);
  t.warp->ready &= ~(1u << t.lane);
  t.warp->alive &= ~(1u << t.lane);
  idle_switches = 0;
  t.fiber.suspend_forever();
}

void start(Block& b, unsigned number, int rank, int shared_bytes) {
  const int threads = static_cast<int>(blockDim.x * blockDim.y * blockDim.z);
  const Dim3 id{number % gridDim.x, number / gridDim.x % gridDim.y, number / (gridDim.x * gridDim.y)};
  b.id = id;
  b.number = static_cast<int>(number);
  b.alive = threads;
  b.threads = std::vector<Thread>(threads);
  b.warps.resize((threads + kWarpLanes - 1) / kWarpLanes);
  b.warpgroups.resize(threads / kWarpgroupThreads);
  for (Warpgroup& g : b.warpgroups) g.registers = std::min(248, kRegisterFile / threads / 8 * 8);
  make_shared(b, shared_bytes);
  const int agents = b.agents();
  b.first_agent = rank * b.own_agents();
  if (race_detection) b.time.assign(agents, 0);
  for (Barrier& barrier : b.barriers) barrier.clock = Clock(agents);
  for (Warp& w : b.warps) w.priority = random_bits();
  for (int i = 0; i < threads; ++i) {
    Thread& t = b.threads[i];
    t.index = i;
    t.lane = i % kWarpLanes;
    t.agent = b.first_agent + i;
    t.id = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
    t.block = &b;
    t.warp = &b.warps[i / kWarpLanes];
    t.warp->lanes[t.lane] = &t;
    t.warp->alive |= 1u << t.lane;
    t.call.block = id;
    t.call.thread = i;
    t.clock = Clock(agents);
    if (race_detection) t.clock.seen[t.agent] = 1;
    t.fiber.start(thread_entry);
    wake(t);
  }
}

int lowest(uint32_t lanes) { return __builtin_ctz(lanes); }

Warp* pick_warp() {
  Warp* best = nullptr;
  unsigned candidates = 0;
  for (auto& b : active)
    for (Warp& w : b->warps) {
      if (!(w.ready & ~w.resting)) continue;
      switch (schedule.order) {
        case Order::fifo: best = best ? best : &w; break;
        case Order::lifo: best = &w; break;
        case Order::random: best = random_bits() % ++candidates == 0 ? &w : best; break;
        case Order::priority: best = !best || w.priority > best->priority ? &w : best; break;
      }
    }
  return best;
}

Thread* pick() {
  if (shuffled() && random_bits() % 16 == 0) turn = nullptr;
  Warp* best = turn && turn->ready & ~turn->resting ? turn : pick_warp();
  if (!best) {
    for (auto& b : active)
      for (Warp& w : b->warps) w.resting = 0;
    best = pick_warp();
  }
  if (!best) return nullptr;
  if (schedule.order == Order::priority && random_bits() % 64 == 0) best->priority = random_bits();
  turn = best;
  const uint32_t lanes = best->ready & ~best->resting;
  if (schedule.order == Order::fifo) return best->lanes[lowest(lanes)];
  if (schedule.order == Order::lifo) return best->lanes[31 - __builtin_clz(lanes)];
  const int turn = static_cast<int>(random_bits() % kWarpLanes);
  const uint32_t turned = turn ? lanes >> turn | lanes << (kWarpLanes - turn) : lanes;
  return best->lanes[(lowest(turned) + turn) % kWarpLanes];
}

// What each thread waits for, alike ones together.
std::string standstill(const char* title) {
  std::map<std::string, std::pair<int, std::set<int>>> groups;
  for (auto& b : active)
    for (Thread& t : b->threads) {
      if (!(t.warp->alive >> t.lane & 1)) {
        ++groups["have ended"].first;
        continue;
      }
      std::string what = std::string("in ") + t.call.what + " at " + source_line(t.call.site);
      if (!strcmp(t.call.what, "mbarrier_wait") || !strcmp(t.call.what, "mbarrier_try_wait")) {
        const Mbarrier& m = b->mbarriers[t.waits_for];
        what += text(
            ": mbarrier 0x%x, parity %u, is in phase %u with %d of %d arrivals and %lld bytes to come", t.waits_for,
            t.parity, m.phase, m.pending, m.expected, static_cast<long long>(m.bytes));
      }
      for (int i = 0; i < 16; ++i)
        if (std::count(b->barriers[i].waiting.begin(), b->barriers[i].waiting.end(), &t))
          what += text(": barrier %d has %d of %d threads", i, b->barriers[i].arrived, b->barriers[i].expected);
      auto& group = groups[what];
      ++group.first;
      group.second.insert(t.index / kWarpLanes);
    }
  std::string result = title;
  for (auto& [what, group] : groups) {
    result += text("\n  %d threads ", group.first) + what;
    if (!group.second.empty()) result += "; warps";
    for (int w : group.second) result += text(" %d", w);
  }
  return result;
}

void remove_ended() {
  std::erase_if(active, [](auto& b) {
    if (b->alive) return false;
    if (!b->loads.empty()) fail(b->loads.front().call, "the block ended while this load was on its way");
    std::ranges::replace(b->cluster->blocks, b.get(), nullptr);
    free_shared(*b);
    return true;
  });
  block_ended = false;
  turn = nullptr;
}

void start_cluster(unsigned number, unsigned size, int shared_bytes) {
  const auto cluster = std::make_shared<Cluster>();
  cluster->number = static_cast<int>(number);
  for (unsigned rank = 0; rank < size; ++rank) {
    Block& b = *active.emplace_back(std::make_unique<Block>());
    b.cluster = cluster;
    cluster->blocks.push_back(&b);
  }
  for (unsigned rank = 0; rank < size; ++rank)
    start(*cluster->blocks[rank], number * size + rank, static_cast<int>(rank), shared_bytes);
}

void run_clusters(Dim3 grid, unsigned size, int shared_bytes) {
  std::vector<unsigned> order(size_t{grid.x} * grid.y * grid.z / size);
  std::iota(order.begin(), order.end(), 0u);
  if (shuffled())
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random_bits() % i]);
  size_t next = 0;
  while (next < order.size() || !active.empty()) {
    const auto room = [&] { return active.empty() || active.size() + size <= static_cast<size_t>(schedule.resident); };
    for (; next < order.size() && room(); ++next) start_cluster(order[next], size, shared_bytes);
    Thread* t = pick();
    // Loads land between two switches: at once, as late as can be, or now and then.
    if (!t || schedule.timing == Timing::early || (schedule.timing == Timing::mixed && random_bits() % 16 == 0)) {
      bool landed = false;
      for (auto& b : active) landed = landed || land_load(*b);
      if (landed) {
        idle_switches = 0;
        continue;
      }
    }
    if (!t) throw Error(problems + standstill("deadlock: no thread can run"));
    if (++idle_switches > kPatience * t->block->threads.size())
      throw Error(problems + standstill("livelock: every thread that can run only polls"));
    running = t;
    threadIdx = t->id;
    blockIdx = t->block->id;
    ++counters.switches;
    t->fiber.resume();
    running = nullptr;
    if (failed) throw Error(problems);
    if (block_ended) remove_ended();
  }
}

}  // namespace

uint32_t random_bits() {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return static_cast<uint32_t>(random_state >> 16);
}

bool now() { return schedule.timing == Timing::early || (schedule.timing == Timing::mixed && random_bits() % 2); }

int linear_thread() { return running->index; }

Thread& enter(const char* what, const void* site) {
  running->call.what = what;
  running->call.site = site;
  return *running;
}

void wake(Thread& t) { t.warp->ready |= 1u << t.lane; }

void end_turn() { turn = nullptr; }

void block_running() {
  running->warp->ready &= ~(1u << running->lane);
  idle_switches = 0;
  running->fiber.suspend();
}

void pause_running(bool polling) {
  if (polling) running->warp->resting |= 1u << running->lane;
  else idle_switches = 0;
  running->fiber.suspend();
}

void fail(const Call& call, const std::string& problem) {
  const std::string line = call.where() + ": " + problem;
  if (!running) throw Error(problems + line);
  problems += line;
  failed = true;
  running->fiber.suspend_forever();
}

void report(const std::string& problem) {
  constexpr int kEnough = 4;
  if (++reports <= kEnough) problems += problem + "\n";
}

void run(Body kernel, const void* argument, Dim3 grid, Dim3 block, int shared_bytes, int cluster) {
  const size_t threads = size_t{block.x} * block.y * block.z;
  if (threads < 1 || threads > 1024 || shared_bytes < 0 || shared_bytes > kMaxShared || !(grid.x && grid.y && grid.z))
    throw Error(text(
        "launch: %zu threads a block (1 to 1024), %d bytes of shared memory (up to %d), %u x %u x %u blocks", threads,
        shared_bytes, kMaxShared, grid.x, grid.y, grid.z));
  if (cluster < 1 || cluster > 8 || grid.x % cluster)
    throw Error(text("launch: clusters of %d blocks (1 to 8) in %u", cluster, grid.x));
  body = kernel;
  body_argument = argument;
  blockDim = block;
  gridDim = grid;
  random_state = schedule.seed * 0x9e3779b97f4a7c15u | 1;
  for (int i = 0; i < 8; ++i) random_bits();
  problems.clear();
  reports = 0;
  failed = false;
  idle_switches = 0;
  begin_global();
  const auto clean = [] {
    running = nullptr;
    for (auto& b : active) free_shared(*b);
    active.clear();
    turn = nullptr, block_ended = false;
  };
  try {
    run_clusters(grid, static_cast<unsigned>(cluster), shared_bytes);
  } catch (...) {
    clean();
    throw;
  }
  if (!problems.empty()) throw Error(problems);
}

std::string to_string(const Schedule& s) {
  const char* orders[] = {"fifo", "lifo", "random", "priority"};
  const char* timings[] = {"early", "late", "mixed"};
  return text(
      "--seed %llu --order %s --timing %s --resident %d --multiprocessors %d --skew %d",
      static_cast<unsigned long long>(s.seed), orders[int(s.order)], timings[int(s.timing)], s.resident,
      s.multiprocessors, s.skew);
}

}  // namespace lossk::emulator
