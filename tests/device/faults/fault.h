// Kernels that are wrong on purpose.
#pragma once
#include "device/harness.h"

namespace lossk::test {

// The launch must end with an Error that says all of `words`.
template <class F>
void expect_fault(std::initializer_list<const char*> words, F launch_it) {
  std::string said = "nothing";
  try {
    launch_it();
  } catch (const emulator::Error& e) {
    said = e.what();
  }
  for (const char* word : words)
    expect(said.find(word) != std::string::npos, std::string("expected \"") + word + "\" to be said, got: " + said);
}

}  // namespace lossk::test
