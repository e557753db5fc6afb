#include "emulator/engine/fiber.h"

#include <sys/mman.h>
#include <ucontext.h>

#include <cstdint>
#include <cstdlib>
#include <new>
#include <vector>

// A switch is a dozen instructions here and a system call in ucontext, which serves other processors.
#if defined(__x86_64__) && !defined(LOSSK_UCONTEXT)
#define LOSSK_FAST_SWITCH 1
#endif

extern "C" {
// There in a build with AddressSanitizer, which must know which stack it is on.
void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom, size_t size) __attribute__((weak));
void __sanitizer_finish_switch_fiber(void* fake_stack, const void** bottom, size_t* size) __attribute__((weak));
void __asan_unpoison_memory_region(const volatile void*, size_t) __attribute__((weak));
// A fiber that an error ends leaves what its stack owned.
const char* __asan_default_options() { return "detect_leaks=0"; }
}

#if LOSSK_FAST_SWITCH
extern "C" void lossk_switch_stack(void** save, void* load);
asm(R"(
.text
.globl lossk_switch_stack
.type lossk_switch_stack, @function
lossk_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size lossk_switch_stack, . - lossk_switch_stack
)");
#endif

namespace lossk::emulator {
namespace {

constexpr size_t kStack = 256 << 10, kGuard = 4096;

std::vector<char*> free_stacks;  // mapping memory is slow: stacks are used again

char* take_stack() {
  if (!free_stacks.empty()) {
    char* stack = free_stacks.back();
    free_stacks.pop_back();
    if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(stack, kStack);
    return stack;
  }
  void* p = mmap(nullptr, kGuard + kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  mprotect(p, kGuard, PROT_NONE);
  return static_cast<char*>(p) + kGuard;
}

// The scheduler's side of the switch; the fiber that runs, for its first entry.
struct {
  void* context = nullptr;
  void* fake_stack = nullptr;
  const void* bottom = nullptr;
  size_t size = 0;
} scheduler;
Fiber* starting;

void switch_context(void*& save, void* load) {
#if LOSSK_FAST_SWITCH
  lossk_switch_stack(&save, load);
#else
  if (!save) save = new ucontext_t;
  swapcontext(static_cast<ucontext_t*>(save), static_cast<ucontext_t*>(load));
#endif
}

}  // namespace

Fiber::~Fiber() {
  if (stack_) free_stacks.push_back(stack_);
#if !LOSSK_FAST_SWITCH
  delete static_cast<ucontext_t*>(context_);
#endif
}

void Fiber::start(void (*entry)()) {
  stack_ = take_stack();
  entry_ = entry;
#if LOSSK_FAST_SWITCH
  // What lossk_switch_stack pops: six registers, then where to go. The ABI wants rsp 8 off a multiple of 16 there.
  void** top = reinterpret_cast<void**>(stack_ + kStack - 64);
  for (int i = 0; i < 6; ++i) top[i] = nullptr;
  top[6] = reinterpret_cast<void*>(&first_entry);
  context_ = top;
#else
  auto* context = new ucontext_t;
  getcontext(context);
  context->uc_stack.ss_sp = stack_;
  context->uc_stack.ss_size = kStack;
  makecontext(context, &first_entry, 0);
  context_ = context;
#endif
}

void Fiber::resume() {
  starting = this;
  if (__sanitizer_start_switch_fiber) __sanitizer_start_switch_fiber(&scheduler.fake_stack, stack_, kStack);
  switch_context(scheduler.context, context_);
  if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(scheduler.fake_stack, nullptr, nullptr);
}

void Fiber::first_entry() {
  if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(nullptr, &scheduler.bottom, &scheduler.size);
  starting->entry_();
}

void Fiber::switch_back(bool forever) {
  if (__sanitizer_start_switch_fiber)
    __sanitizer_start_switch_fiber(forever ? nullptr : &fake_stack_, scheduler.bottom, scheduler.size);
  switch_context(context_, scheduler.context);
  if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(fake_stack_, &scheduler.bottom, &scheduler.size);
}

void Fiber::suspend() { switch_back(false); }

void Fiber::suspend_forever() {
  switch_back(true);
  std::abort();  // unreachable: nobody resumes it
}

}  // namespace lossk::emulator
