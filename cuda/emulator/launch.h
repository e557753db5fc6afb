// device/launch.h on a CPU.
#pragma once
#include "emulator/emulator.h"
#include "emulator/platform.h"

namespace lossk::emulator {

// A broken rule is an Error here, so what is returned is success.
template <class... Parameters>
cudaError_t launch(
    void (*kernel)(Parameters...), dim3 blocks, int threads, int shared_bytes, const Parameters&... parameters) {
  const auto call = [&] { kernel(parameters...); };
  run([](const void* body) { (*static_cast<const decltype(call)*>(body))(); }, &call, blocks, threads, shared_bytes);
  return cudaSuccess;
}

}  // namespace lossk::emulator
