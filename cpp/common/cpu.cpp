#include "common/cpu.h"

#include <cstdlib>
#include <cstring>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "common/check.h"

namespace lossk {
namespace {

constexpr const char* kNames[] = {"portable", "avx2", "avx512", "avx512bf16", "amxbf16"};

// Tiles are 8 KiB more of each thread's state: a process asks Linux for them once.
bool has_tiles() {
#if defined(__x86_64__) && defined(__linux__)
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && d & kBf16 && d & kTile &&
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

Cpu detect() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  const bool bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
  if (bf16 && has_tiles()) return Cpu::amxbf16;
  // Intel's VDPBF16PS takes 1.6 times as long as the products in float32 that it stands for (cpp/head/NOTES.md).
  if (bf16 && !__builtin_cpu_is("intel")) return Cpu::avx512bf16;
  if (avx512) return Cpu::avx512;
  if (avx2) return Cpu::avx2;
#endif
  return Cpu::portable;
}

Cpu choose() {
  const Cpu best = detect();
  const char* wanted = std::getenv("LOSSK_CPU");
  if (wanted == nullptr) return best;
  for (int i = 0; i <= static_cast<int>(best); ++i)
    if (std::strcmp(wanted, kNames[i]) == 0) return static_cast<Cpu>(i);
  fail(
      "lossk: LOSSK_CPU must be portable, avx2, avx512, avx512bf16 or amxbf16 and at most ", cpu_name(best), ", got ",
      wanted);
}

}  // namespace

const char* cpu_name(Cpu c) { return kNames[static_cast<int>(c)]; }

Cpu cpu() {
  static const Cpu chosen = choose();
  return chosen;
}

}  // namespace lossk
