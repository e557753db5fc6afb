// The emulator as a test sees it: schedules, memory it may touch, what went wrong.
//
// Every CUDA thread is a fiber. Lanes of a warp run freely between collectives, copies and matrix units work when the
// schedule says, so a kernel that is right only under one timing is found by another.
#pragma once
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace lossk::emulator {

enum class Order { fifo, lifo, random, priority };  // of warps and lanes; priority: some warps starve, then others
enum class Timing { early, late, mixed };           // of everything asynchronous: at once, at the last moment, either

struct Schedule {
  uint64_t seed = 1;
  Order order = Order::fifo;
  Timing timing = Timing::early;
  int resident = 1;         // blocks that run at the same time
  int multiprocessors = 3;  // what a persistent kernel is told
  int skew = 0;             // bytes by which shared memory misses a 1024-byte boundary, a multiple of 16
};
extern Schedule schedule;  // of the launches to come

// `name` is the schedule as the command line takes it.
std::string to_string(const Schedule&);

struct Error : std::runtime_error {
  using runtime_error::runtime_error;
};

// What the launches did since a test set them to {}.
struct Counters {
  uint64_t switches, collectives, copies, products, matrices, bank_conflicts;
};
extern Counters counters;

bool detects_races();  // was the kernel's source compiled for it?

// Global memory that copies and atomics may touch; anything else is an Error.
void allow_global(const void* p, size_t bytes);
void forbid_global(const void* p);

}  // namespace lossk::emulator
