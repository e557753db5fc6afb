// Which CPU this is, and the constants its kernels are built from.
#pragma once
#include <cstdint>

namespace lossk {

enum class Cpu { portable, avx2, avx512, avx512bf16, amxbf16 };

// The best this machine runs; the environment variable LOSSK_CPU (a name above) lowers it, so that each can be tested.
Cpu cpu();
const char* cpu_name(Cpu);

// Of tables for each CPU the one for this machine.
template <class Table>
const Table& choose(const Table& portable, const Table& avx2, const Table& avx512) {
  return cpu() >= Cpu::avx512 ? avx512 : cpu() == Cpu::avx2 ? avx2 : portable;
}

// A register tile is mr rows x vectors vectors: it fills the register file (accumulators, one row of b, one of a).
struct Portable {
  static constexpr int64_t vector_bytes = 16, mr = 4, vectors = 2;
};
struct Avx2 {
  static constexpr int64_t vector_bytes = 32, mr = 6, vectors = 2;
};
struct Avx512 {
  static constexpr int64_t vector_bytes = 64, mr = 12, vectors = 2;
};

}  // namespace lossk
