// device/launch.h on a CPU.
#pragma once
#include "emulator/emulator.h"
#include "emulator/platform.h"

namespace lossk::emulator {

// A broken rule is an Error here, so what is returned is success.
template <class... Parameters>
cudaError_t launch(
    void (*kernel)(Parameters...), dim3 blocks, int threads, int shared_bytes, int cluster,
    const Parameters&... parameters) {
  const auto call = [&] { kernel(parameters...); };
  const auto body = [](const void* call_it) { (*static_cast<const decltype(call)*>(call_it))(); };
  run(body, &call, blocks, threads, shared_bytes, cluster);
  return cudaSuccess;
}

}  // namespace lossk::emulator
