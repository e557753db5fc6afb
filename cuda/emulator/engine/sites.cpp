// From the address of an instruction to its line: binutils' addr2line, which comes with g++.
#include <dlfcn.h>

#include <cstdarg>
#include <cstdio>
#include <map>
#include <string>
#include <string_view>

#include "emulator/engine/call.h"

namespace lossk::emulator {
namespace {

// The build maps the project's root to this (-ffile-prefix-map).
constexpr std::string_view kRoot = "/lossk/";

// Frames come innermost first: the emulator's half of the device layer, then its shared half, then the kernel.
std::string look_up(const void* site) {
  Dl_info module;
  if (!site || !dladdr(site, &module) || !module.dli_fname) return "?";
  const auto offset = static_cast<const char*>(site) - static_cast<const char*>(module.dli_fbase) - 1;
  const std::string command = text("addr2line -ie '%s' 0x%zx 2>&1", module.dli_fname, static_cast<size_t>(offset));
  FILE* pipe = popen(command.c_str(), "r");
  if (!pipe) return "?";
  std::string kernel, device;
  char line[512];
  while (fgets(line, sizeof line, pipe)) {
    std::string frame(line);
    frame = frame.substr(0, frame.find_first_of(" \n"));
    if (frame.starts_with(kRoot)) frame = frame.substr(kRoot.size());
    if (frame.starts_with("cuda/emulator/")) continue;
    std::string& place = frame.starts_with("cuda/device/") ? device : kernel;
    if (place.empty()) place = frame;
  }
  pclose(pipe);
  if (kernel.empty()) return device.empty() ? "?" : device;
  return device.empty() ? kernel : kernel + " through " + device;
}

}  // namespace

std::string source_line(const void* site) {
  static std::map<const void*, std::string> known;
  auto [entry, is_new] = known.try_emplace(site);
  if (is_new) entry->second = look_up(site);
  return entry->second;
}

std::string text(const char* format, ...) {
  char buffer[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(buffer, sizeof buffer, format, arguments);
  va_end(arguments);
  return buffer;
}

std::string Call::where() const {
  return std::string(what) + " at " + source_line(site) +
         text(", block (%u, %u, %u) warp %d lane %d", block.x, block.y, block.z, thread / 32, thread % 32);
}

}  // namespace lossk::emulator
