// A warp's matrices: ldmatrix, stmatrix, mma.sync.
#include <cstring>

#include "emulator/engine/machine.h"
#include "emulator/engine/numbers.h"

namespace lossk::emulator {
namespace {

struct Move {
  uint32_t* registers;
  int count;
  uint32_t row;
  bool transposed, store;
};

// Element (row, column) of an 8 x 8 matrix that half `j` of a lane's register holds.
struct Place {
  int row, column;
};
Place place(int lane, int j, bool transposed) {
  const int along = lane % 4 * 2 + j, across = lane / 4;
  return transposed ? Place{along, across} : Place{across, along};
}

void do_move(Warp& w, const Meeting& m) {
  const auto move = [&](int lane) -> const Move& { return *static_cast<const Move*>(m.arguments[lane]); };
  const Move& any = move(0);
  for (int i = 0; i < any.count; ++i) {
    char* row[8];
    int in_bank[8] = {};
    for (int r = 0; r < 8; ++r) {
      Thread& t = *w.lanes[8 * i + r];
      const uint32_t address = move(t.lane).row;
      row[r] = shared(*t.block, address, 16, 16, t.call);
      touch(t, address, 16, any.store ? Access::write : Access::read);
      ++in_bank[address / 16 % 8];
    }
    ++counters.matrices;
    counters.bank_conflicts += *std::max_element(in_bank, in_bank + 8) - 1;
    for (int lane = 0; lane < kWarpLanes; ++lane) {
      uint16_t halves[2];
      if (any.store) memcpy(halves, &move(lane).registers[i], 4);
      for (int j = 0; j < 2; ++j) {
        const Place p = place(lane, j, any.transposed);
        char* element = row[p.row] + 2 * p.column;
        if (any.store) memcpy(element, &halves[j], 2);
        else memcpy(&halves[j], element, 2);
      }
      if (!any.store) memcpy(&move(lane).registers[i], halves, 4);
    }
  }
}

struct Mma {
  Element element;
  float* d;
  const uint32_t *a, *b;
};

// Many of a test's seconds go by here: all but the operands is known to the compiler.
template <Element element>
void multiply(const Meeting& m) {
  const auto of = [&](int lane) -> const Mma& { return *static_cast<const Mma*>(m.arguments[lane]); };
  constexpr int per_register = 4 / element_bytes(element), depth = 8 * per_register;
  float a[16][depth], b[depth][8];
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    const int g = lane / 4, k = lane % 4 * per_register;
    for (int j = 0; j < per_register; ++j) {
      for (int r = 0; r < 4; ++r)
        a[g + r % 2 * 8][k + r / 2 * depth / 2 + j] = part_of_register(of(lane).a[r], j, element);
      for (int r = 0; r < 2; ++r) b[k + r * depth / 2 + j][g] = part_of_register(of(lane).b[r], j, element);
    }
  }
  float sum[16][8] = {};
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < depth; ++k)
      for (int column = 0; column < 8; ++column) sum[row][column] += a[row][k] * b[k][column];
  for (int lane = 0; lane < kWarpLanes; ++lane)
    for (int i = 0; i < 4; ++i) of(lane).d[i] += sum[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
}

void do_mma(Warp&, const Meeting& m) {
  ++counters.products;
  switch (static_cast<const Mma*>(m.arguments[0])->element) {
    case Element::bf16: return multiply<Element::bf16>(m);
    case Element::fp16: return multiply<Element::fp16>(m);
    default: return multiply<Element::tf32>(m);
  }
}

}  // namespace

void ldmatrix(uint32_t* registers, int count, uint32_t row, bool transposed) {
  const Move move{registers, count, row, transposed, false};
  meet(LOSSK_ENTER("ldmatrix"), ~0u, &move, do_move);
}

void stmatrix(const uint32_t* registers, int count, uint32_t row, bool transposed) {
  const Move move{const_cast<uint32_t*>(registers), count, row, transposed, true};
  meet(LOSSK_ENTER("stmatrix"), ~0u, &move, do_move);
}

void mma(Element element, float* d, const uint32_t* a, const uint32_t* b) {
  const Mma operands{element, d, a, b};
  meet(LOSSK_ENTER("mma"), ~0u, &operands, do_mma);
}

}  // namespace lossk::emulator
