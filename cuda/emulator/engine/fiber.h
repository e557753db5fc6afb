// Fibers: threads that hand over by themselves. A CUDA thread is one.
#pragma once
#include <cstddef>

namespace lossk::emulator {

class Fiber {
 public:
  Fiber() = default;
  Fiber(const Fiber&) = delete;
  ~Fiber();  // also of one that never ended; what lives on its stack is forgotten

  void start(void (*entry)());  // entry must end with suspend_forever
  void resume();                // from the scheduler, until the fiber suspends
  void suspend();               // from the fiber
  [[noreturn]] void suspend_forever();

 private:
  void switch_back(bool forever);
  static void first_entry();

  char* stack_ = nullptr;
  void* context_ = nullptr;  // saved stack pointer, or a ucontext_t
  void* fake_stack_ = nullptr;
  void (*entry_)() = nullptr;
};

}  // namespace lossk::emulator
