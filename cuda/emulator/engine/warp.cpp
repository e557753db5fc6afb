// What a warp's lanes tell one another. None of it orders memory, but for sync_warp.
#include "emulator/engine/machine.h"

namespace lossk::emulator {
namespace {

struct Word {
  uint32_t x;
  int lane;  // whose x is wanted
  Reduction op;
  mutable uint32_t result;
};

const Word& word(const Meeting& m, int lane) { return *static_cast<const Word*>(m.arguments[lane]); }

template <class F>
void each_lane(const Meeting& m, F f) {
  for (int lane = 0; lane < kWarpLanes; ++lane)
    if (m.mask >> lane & 1) f(lane);
}

// Every lane gets the same: f over the lanes' words.
template <class F>
void all_get(const Meeting& m, uint32_t start, F f) {
  uint32_t result = start;
  each_lane(m, [&](int lane) { result = f(result, word(m, lane).x, lane); });
  each_lane(m, [&](int lane) { word(m, lane).result = result; });
}

void do_sync(Warp& w, const Meeting& m) {
  if (!race_detection) return;
  Clock all = running->clock;
  each_lane(m, [&](int lane) { all.join(w.lanes[lane]->clock); });
  each_lane(m, [&](int lane) {
    w.lanes[lane]->clock.join(all);
    ++w.lanes[lane]->clock.seen[w.lanes[lane]->agent];
  });
}

void do_shuffle(Warp&, const Meeting& m) {
  each_lane(m, [&](int lane) {
    const Word& mine = word(m, lane);
    if (!(m.mask >> mine.lane & 1)) fail(running->call, text("reads lane %d, which the mask does not name", mine.lane));
    mine.result = word(m, mine.lane).x;
  });
}

void do_ballot(Warp&, const Meeting& m) {
  all_get(m, 0, [](uint32_t votes, uint32_t x, int lane) { return votes | x << lane; });
}

void do_match(Warp&, const Meeting& m) {
  each_lane(m, [&](int lane) {
    uint32_t same = 0;
    each_lane(m, [&](int other) { same |= uint32_t{word(m, other).x == word(m, lane).x} << other; });
    word(m, lane).result = same;
  });
}

void do_elect(Warp&, const Meeting& m) {
  int leader = schedule.order == Order::fifo ? 0 : static_cast<int>(random_bits() % kWarpLanes);
  while (!(m.mask >> leader & 1)) leader = (leader + 1) % kWarpLanes;
  each_lane(m, [&](int lane) { word(m, lane).result = lane == leader; });
}

void do_reduce(Warp&, const Meeting& m) {
  const Reduction op = word(m, running->lane).op;
  all_get(m, op == Reduction::min ? ~0u : 0u, [op](uint32_t a, uint32_t b, int) {
    switch (op) {
      case Reduction::add: return a + b;
      case Reduction::max: return std::max(a, b);
      case Reduction::min: return std::min(a, b);
      default: return a | b;
    }
  });
}

uint32_t ask(Thread& t, uint32_t mask, Word word, Execute execute) {
  meet(t, mask, &word, execute);
  return word.result;
}

}  // namespace

void sync_warp(uint32_t mask) { meet(LOSSK_ENTER("sync_warp"), mask, nullptr, do_sync); }
uint32_t shuffle(uint32_t x, int lane, uint32_t mask) {
  return ask(LOSSK_ENTER("shuffle"), mask, {x, lane & 31, {}, 0}, do_shuffle);
}
uint32_t warp_ballot(bool vote, uint32_t mask) {
  return ask(LOSSK_ENTER("warp_ballot"), mask, {vote, 0, {}, 0}, do_ballot);
}
uint32_t match_any(uint32_t x, uint32_t mask) { return ask(LOSSK_ENTER("match_any"), mask, {x, 0, {}, 0}, do_match); }
uint32_t reduce(Reduction op, uint32_t x, uint32_t mask) {
  const char* names[] = {"reduce_add", "reduce_max", "reduce_min", "reduce_or"};
  return ask(LOSSK_ENTER(names[int(op)]), mask, {x, 0, op, 0}, do_reduce);
}
bool elect_one() { return ask(LOSSK_ENTER("elect_one"), ~0u, {}, do_elect); }

}  // namespace lossk::emulator
