// Who does what where: what a report says of an instruction.
#pragma once
#include <string>

#include "emulator/engine/calls.h"

namespace lossk::emulator {

struct Call {
  const char* what = "start";
  const void* site = nullptr;  // the return address: an instruction of the kernel
  Dim3 block;
  int thread = 0;

  std::string where() const;  // "mbarrier_wait at head/lse.cuh:70, block (0, 0, 0) warp 1 lane 3"
};

// The line of a kernel that `site` is in, and the device function it came through.
std::string source_line(const void* site);

[[gnu::format(printf, 1, 2)]] std::string text(const char* format, ...);

// Ends the launch, from a fiber or from the scheduler.
[[noreturn]] void fail(const Call& call, const std::string& problem);
// Ends it with an Error at its end, so that more can be seen.
void report(const std::string& problem);

}  // namespace lossk::emulator
