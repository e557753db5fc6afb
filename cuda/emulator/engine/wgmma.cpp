// wgmma: what a matrix descriptor means, and products that take their accumulators away until they are waited for.
#include <cstring>

#include "emulator/engine/machine.h"
#include "emulator/engine/numbers.h"

namespace lossk::emulator {
namespace {

// An operand tile in shared memory, read as (row along M or N, k).
class Tile {
 public:
  Tile(uint64_t descriptor, bool transposed, const Call& call)
      : start_((descriptor & 0x3fff) << 4),
        inner_((descriptor >> 16 & 0x3fff) << 4),
        outer_((descriptor >> 32 & 0x3fff) << 4),
        swizzle_(static_cast<int>(descriptor >> 62)),
        transposed_(transposed) {
    if (descriptor >> 49 & 7)
      fail(call, "a descriptor's base offset is not modelled: start the pattern where it aligns");
    if (transposed && swizzle_ != 1) fail(call, "a transposed tile is modelled under the 128-byte swizzle only");
  }
  uint32_t address(int row, int k) const {
    if (transposed_)  // 64 rows beside one another, 8 k below one another
      return exchange_chunks(start_ + row / 64 * inner_ + k / 8 * outer_ + k % 8 * 128 + row % 64 * 2, swizzle_);
    if (swizzle_ == 0)  // 8 rows of 16 bytes are one piece
      return start_ + row / 8 * outer_ + k / 8 * inner_ + row % 8 * 16 + k % 8 * 2;
    constexpr int kWidth[] = {16, 128, 64, 32};
    return exchange_chunks(start_ + row / 8 * outer_ + row % 8 * kWidth[swizzle_] + k * 2, swizzle_);
  }

 private:
  uint32_t start_, inner_, outer_;
  int swizzle_;
  bool transposed_;
};

float read(Block& b, uint32_t address, Element element, int unit, const Clock& clock, const Call& call) {
  uint16_t bits;
  memcpy(&bits, shared(b, address, 2, 2, call), 2);
  if (race_detection) b.shadow.access(unit, clock, address, 2, Access::read, Proxy::async, call);
  return element == Element::bf16 ? from_bf16(bits) : from_fp16(bits);
}

void perform(Block& b, Warpgroup& g, Product& p) {
  if (p.done) return;
  p.done = true;
  ++counters.products;
  const Wgmma& op = p.operation;
  const int n = op.n, unit = b.unit_of(g);
  static float a[64][16], bt[16][256];  // b as k rows of n
  if (op.a_registers) {
    for (int r = 0; r < 64; ++r)
      for (int k = 0; k < 16; ++k) {
        const int thread = r / 16 * 32 + r % 8 * 4 + k % 8 / 2, which = r % 16 / 8 + k / 8 * 2;
        a[r][k] = part_of_register(p.a[4 * thread + which], k % 2, op.element);
      }
  } else {
    const Tile tile(op.a, op.a_transposed, p.call);
    for (int r = 0; r < 64; ++r)  // each warp's rows, by what that warp knew
      for (int k = 0; k < 16; ++k) a[r][k] = read(b, tile.address(r, k), op.element, unit, p.clock[r / 16], p.call);
  }
  const Tile tile(op.b, op.b_transposed, p.call);
  Clock all = p.clock[0];
  for (const Clock& c : p.clock) all.meet(c);
  for (int j = 0; j < n; ++j)
    for (int k = 0; k < 16; ++k) bt[k][j] = read(b, tile.address(j, k), op.element, unit, all, p.call);

  std::vector<float>& value = g.accumulators.at(op.d).value;
  for (int r = 0; r < 64; ++r) {
    float row[256] = {};
    for (int k = 0; k < 16; ++k)
      for (int j = 0; j < n; ++j) row[j] += a[r][k] * bt[k][j];
    for (int j = 0; j < n; ++j) {
      const int thread = r / 16 * 32 + r % 8 * 4 + j % 8 / 2, which = j / 8 * 4 + r % 16 / 8 * 2 + j % 2;
      float& d = value[thread * (n / 2) + which];
      d = op.accumulate ? d + row[j] : row[j];
    }
  }
}

void do_fence(Block&, Warpgroup& g) { g.fenced = true; }
// Accumulators may enter in any number behind one fence, but not after the commit: they may have been touched since.
void do_commit(Block&, Warpgroup& g) {
  ++g.group;
  g.fenced = false;
}

void take_accumulators(Warpgroup& g, int count) {
  const auto of = [&](int i) { return static_cast<const Wgmma*>(g.arguments[i])->d; };
  Accumulators& taken = g.accumulators[of(0)];
  if (!taken.home.empty()) return;
  taken.value.resize(kWarpgroupThreads * count);
  for (int i = 0; i < kWarpgroupThreads; ++i) {
    taken.home.push_back(of(i));
    memcpy(&taken.value[i * count], of(i), count * sizeof(float));
    memset(of(i), 0xff, count * sizeof(float));  // nan to whoever reads them too early
  }
}

void give_back_accumulators(Warpgroup& g) {
  for (auto entry = g.accumulators.begin(); entry != g.accumulators.end();) {
    const auto& [first_home, taken] = *entry;
    const auto uses = [d = first_home](const Product& p) { return p.operation.d == d; };
    if (std::any_of(g.products.begin(), g.products.end(), uses)) {
      ++entry;
      continue;
    }
    const size_t count = taken.value.size() / kWarpgroupThreads;
    for (int i = 0; i < kWarpgroupThreads; ++i) memcpy(taken.home[i], &taken.value[i * count], count * sizeof(float));
    entry = g.accumulators.erase(entry);
  }
}

void do_product(Block& b, Warpgroup& g) {
  const auto of = [&](int i) -> const Wgmma& { return *static_cast<const Wgmma*>(g.arguments[i]); };
  const Wgmma& op = of(0);
  const Call& call = g.threads[0]->call;
  if (!g.fenced && !g.accumulators.count(op.d)) fail(call, "no wgmma_fence since the start or the last commit");
  for (int i = 1; i < kWarpgroupThreads; ++i)
    if ((!op.a_registers && of(i).a != op.a) || of(i).b != op.b || of(i).accumulate != op.accumulate)
      fail(call, text("threads 0 and %d of the warpgroup differ in descriptors or in `accumulate`", i));
  take_accumulators(g, op.n / 2);
  Product& p = g.products.emplace_back(Product{op, g.group, false, {}, {}, call});
  if (op.a_registers)
    for (int i = 0; i < kWarpgroupThreads; ++i) p.a.insert(p.a.end(), of(i).a_registers, of(i).a_registers + 4);
  if (race_detection) {
    const uint32_t time = b.tick(b.unit_of(g));
    for (int w = 0; w < 4; ++w) {
      p.clock[w] = g.threads[kWarpLanes * w]->clock;
      for (int i = 1; i < kWarpLanes; ++i) p.clock[w].join(g.threads[kWarpLanes * w + i]->clock);
      p.clock[w].learn(b.unit_of(g), time);
    }
  }
  if (now())
    for (Product& each : g.products) perform(b, g, each);
}

void do_wait(Block& b, Warpgroup& g) {
  const int groups = *static_cast<const int*>(g.arguments[0]);
  uint32_t time = 0;
  while (!g.products.empty() && g.products.front().group < g.group - groups) {
    perform(b, g, g.products.front());
    time = g.products.front().clock[0].at(b.unit_of(g));
    g.products.pop_front();
  }
  for (Thread* t : g.threads) t->clock.learn(b.unit_of(g), time);
  give_back_accumulators(g);
}

}  // namespace

void wgmma_fence() { meet_group(LOSSK_ENTER("wgmma_fence"), nullptr, do_fence); }
void wgmma_commit() { meet_group(LOSSK_ENTER("wgmma_commit"), nullptr, do_commit); }
void wgmma_wait(int groups) { meet_group(LOSSK_ENTER("wgmma_wait"), &groups, do_wait); }
void wgmma(const Wgmma& operation) { meet_group(LOSSK_ENTER("wgmma"), &operation, do_product); }

void products_at_exit(Thread& t) {
  const size_t index = t.index / kWarpgroupThreads;
  if (index < t.block->warpgroups.size() && !t.block->warpgroups[index].products.empty())
    fail(t.call, "products of the warpgroup were never waited for");
}

}  // namespace lossk::emulator
