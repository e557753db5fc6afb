// TMA: boxes of tensors and plain stretches of memory, moved past the threads.
#include <cstring>

#include "emulator/engine/machine.h"
#include "emulator/engine/numbers.h"

namespace lossk::emulator {
namespace {

int box_bytes(const TensorMap& m) { return m.box[0] * m.box[1] * m.box[2] * element_bytes(m.element); }

int box_alignment(const TensorMap& m) {
  constexpr int kAlignment[] = {128, 1024, 512, 256};
  return kAlignment[m.swizzle];
}

// f(shared address, pointer into the tensor or null where outside) for each element of the box at `at`.
template <class F>
void each_element(const TensorMap& m, uint32_t start, const int* at, F f) {
  const int bytes = element_bytes(m.element);
  uint32_t dense = start;
  for (int z = 0; z < m.box[2]; ++z)
    for (int y = 0; y < m.box[1]; ++y)
      for (int x = 0; x < m.box[0]; ++x, dense += bytes) {
        const int64_t i = int64_t{at[0]} + x, j = int64_t{at[1]} + y, k = int64_t{at[2]} + z;
        const bool inside = i >= 0 && i < m.size[0] && j >= 0 && j < m.size[1] && k >= 0 && k < m.size[2];
        f(exchange_chunks(dense, m.swizzle), inside ? m.base + i * bytes + j * m.stride[1] + k * m.stride[2] : nullptr);
      }
}

void check_tensor(const TensorMap& m, int rank, const Call& call) {
  if (rank != m.rank) fail(call, text("%d coordinates for a tensor of %d dimensions", rank, m.rank));
  const int64_t last =
      (m.size[0] - 1) * element_bytes(m.element) + (m.size[1] - 1) * m.stride[1] + (m.size[2] - 1) * m.stride[2];
  check_global(m.base, last + element_bytes(m.element), 16, call);
}

void perform(Block& b, const BulkLoad& load) {
  ++counters.copies;
  Mbarrier& m = find_mbarrier(b, load.mbarrier, load.call);
  const auto fetch = [&](uint32_t to, const char* from, int bytes) {
    if (!from) {
      memset(b.memory + to, 0, bytes);
      return;
    }
    memcpy(b.memory + to, from, bytes);
    touch_global(b, m.agent, load.clock, from, bytes, Access::read, load.call);
  };
  if (load.from) fetch(load.to, load.from, load.bytes);
  else
    each_element(load.map, load.to, load.at, [&](uint32_t address, const char* element) {
      fetch(address, element, element_bytes(load.map.element));
    });
  if (race_detection) {
    b.shadow.access(m.agent, load.clock, load.to, load.bytes, Access::write, Proxy::async, load.call);
    m.arriving.learn(m.agent, load.clock.at(m.agent));
  }
  bytes_arrived(m, load.bytes);
}

void issue(Thread& t, Block& b, BulkLoad load) {
  Mbarrier& m = find_mbarrier(b, load.mbarrier, t.call);
  if (race_detection && (!m.fenced || t.clock.seen[m.maker] < m.fenced) && t.clock.fenced[m.maker] < m.made)
    report("race: " + t.call.where() + " counts on an mbarrier whose initialisation no fence_mbarrier_init followed");
  load.clock.learn(m.agent, b.tick(m.agent));
  b.loads.push_back(std::move(load));
  if (schedule.timing == Timing::early) land_load(b);
}

// A store's thread may know that shared memory was read before it knows that global memory is written.
int reads_of(Thread& t) { return t.block->agent_of(&t.stores); }
int writes_of(Thread& t) { return t.block->agent_of(&t.store_group); }

void read(Thread& t, BulkStore& s) {
  if (s.read) return;
  s.read = true;
  Block& b = *t.block;
  s.data.resize(s.bytes);
  memcpy(s.data.data(), b.memory + s.from, s.bytes);
  if (race_detection) b.shadow.access(reads_of(t), s.clock, s.from, s.bytes, Access::read, Proxy::async, s.call);
}

void put(char* to, const char* from, Element element, Store what) {
  if (what == Store::copy) {
    memcpy(to, from, element_bytes(element));
    return;
  }
  if (element == Element::fp32) {
    float a, b;
    memcpy(&a, to, 4);
    memcpy(&b, from, 4);
    a += b;
    memcpy(to, &a, 4);
    return;
  }
  uint16_t a, b;
  memcpy(&a, to, 2);
  memcpy(&b, from, 2);
  a = element == Element::bf16 ? to_bf16(from_bf16(a) + from_bf16(b)) : to_fp16(from_fp16(a) + from_fp16(b));
  memcpy(to, &a, 2);
}

void write(Thread& t, BulkStore& s) {
  read(t, s);
  if (s.written) return;
  s.written = true;
  ++counters.copies;
  const auto store = [&](char* to, const char* from, Element element) {
    put(to, from, element, s.what);
    touch_global(
        *t.block, writes_of(t), s.clock, to, element_bytes(element), Access::write, s.call, s.what == Store::add);
  };
  if (s.to) {
    for (int i = 0; i < s.bytes; i += 4) store(s.to + i, s.data.data() + i, Element::fp32);
    return;
  }
  each_element(s.map, s.from, s.at, [&](uint32_t address, char* element) {
    if (element) store(element, s.data.data() + (address - s.from), s.map.element);
  });
}

void issue(Thread& t, BulkStore store) {
  for (const int agent : {reads_of(t), writes_of(t)}) store.clock.learn(agent, t.block->tick(agent));
  BulkStore& s = t.stores.emplace_back(std::move(store));
  if (now()) read(t, s);
  if (now()) write(t, s);
}

void check_place(const TensorMap& m, int x, const Call& call) {
  const int bytes = x * element_bytes(m.element);
  if (bytes % 16) fail(call, text("a box %d bytes from the tensor's begin: not a multiple of 16", bytes));
}

}  // namespace

void prefetch_map(const TensorMap* map) { check_tensor(*map, map->rank, LOSSK_ENTER("tma_prefetch").call); }

// The map is copied at once: here a kernel's parameters lie on the stack of a thread that may end before its copy.
void tma_load(uint32_t to, const TensorMap* map, uint32_t mbarrier, int rank, int x, int y, int z, uint32_t blocks) {
  Thread& t = LOSSK_ENTER(blocks ? "tma_multicast" : "tma_load");
  check_tensor(*map, rank, t.call);
  check_place(*map, x, t.call);
  const auto load_into = [&](Block& b) {
    shared(b, to, box_bytes(*map), box_alignment(*map), t.call);
    issue(t, b, BulkLoad{*map, nullptr, to, mbarrier, box_bytes(*map), {x, y, z}, t.clock, t.call});
  };
  if (!blocks) load_into(*t.block);
  for (int rank = 0; blocks >> rank; ++rank)
    if (blocks >> rank & 1) load_into(peer(*t.block, rank, t.call));
}

void bulk_load(uint32_t to, const void* from, int bytes, uint32_t mbarrier) {
  Thread& t = LOSSK_ENTER("bulk_load");
  if (bytes <= 0 || bytes % 16) fail(t.call, text("%d bytes: a positive multiple of 16", bytes));
  check_global(from, bytes, 16, t.call);
  shared(*t.block, to, bytes, 16, t.call);
  issue(t, *t.block, BulkLoad{{}, static_cast<const char*>(from), to, mbarrier, bytes, {}, t.clock, t.call});
}

bool land_load(Block& b) {
  if (b.loads.empty()) return false;
  const size_t i = random_bits() % b.loads.size();
  const BulkLoad load = std::move(b.loads[i]);
  b.loads.erase(b.loads.begin() + static_cast<ptrdiff_t>(i));
  perform(b, load);
  return true;
}

void tma_store(const TensorMap* map, uint32_t from, int rank, int x, int y, int z, Store what) {
  Thread& t = LOSSK_ENTER(what == Store::copy ? "tma_store" : "tma_reduce_add");
  check_tensor(*map, rank, t.call);
  check_place(*map, x, t.call);
  if (x < 0 || y < 0 || z < 0) fail(t.call, text("a store to (%d, %d, %d), before the tensor's begin", x, y, z));
  if (map->size[0] * element_bytes(map->element) % 16) fail(t.call, "a store to rows that end inside of 16 bytes");
  shared(*t.block, from, box_bytes(*map), box_alignment(*map), t.call);
  issue(
      t, BulkStore{
             t.store_group, false, false, *map, nullptr, from, box_bytes(*map), {x, y, z}, what, {}, t.clock, t.call});
}

void bulk_store(void* to, uint32_t from, int bytes, Store what) {
  Thread& t = LOSSK_ENTER(what == Store::copy ? "bulk_store" : "bulk_reduce_add");
  if (bytes <= 0 || bytes % 16) fail(t.call, text("%d bytes: a positive multiple of 16", bytes));
  check_global(to, bytes, 16, t.call);
  shared(*t.block, from, bytes, 16, t.call);
  issue(
      t,
      BulkStore{t.store_group, false, false, {}, static_cast<char*>(to), from, bytes, {}, what, {}, t.clock, t.call});
}

void bulk_commit() { ++LOSSK_ENTER("bulk_commit").store_group; }

void bulk_wait(int groups, bool written) {
  Thread& t = LOSSK_ENTER(written ? "bulk_wait" : "bulk_wait_read");
  std::erase_if(t.stores, [&](BulkStore& s) {
    if (s.group >= t.store_group - groups) return false;
    read(t, s);
    t.clock.learn(reads_of(t), s.clock.at(reads_of(t)));
    if (written) {
      write(t, s);
      t.clock.learn(writes_of(t), s.clock.at(writes_of(t)));
    }
    return s.written;
  });
}

// A store may be written after its thread has ended; what it reads from must be there until it is read.
void stores_at_exit(Thread& t) {
  for (BulkStore& s : t.stores) {
    if (s.group >= t.store_group) fail(s.call, "the thread ended before bulk_commit");
    if (!s.read) fail(s.call, "the thread ended without waiting until this store had read shared memory");
    write(t, s);
  }
}

}  // namespace lossk::emulator
