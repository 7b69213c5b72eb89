#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

namespace effnet_fast::emulation {

// makecontext() passes integers only, and the first switch of the assembly form passes nothing.
static Fiber* g_entering = nullptr;

Fiber::~Fiber() {
  if (stack_) munmap(stack_, kStackBytes);
}

void Fiber::enter() {
  Fiber* self = g_entering;
  self->function_(self->argument_);
  __builtin_unreachable();
}

#if defined(__x86_64__)

// Saves what the calling convention lets a callee keep, changes stacks, and restores. Ten times faster than
// swapcontext(), which makes a system call for the signal mask.
asm(R"(
  .text
  .globl effnet_fast_switch_stack
  .hidden effnet_fast_switch_stack
  .type effnet_fast_switch_stack, @function
effnet_fast_switch_stack:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
)");
extern "C" void effnet_fast_switch_stack(void** save, void* next);

static void* initial_stack(char* stack, size_t bytes, void (*enter)()) {
  // At a function's entry rsp + 8 is a multiple of 16. `enter` is what the switch returns to, after six registers.
  auto* top = reinterpret_cast<uintptr_t*>(stack + bytes - 16);
  *--top = 0;
  *--top = reinterpret_cast<uintptr_t>(enter);
  for (int i = 0; i < 6; i++) *--top = 0;
  return top;
}

void Fiber::resume() {
  g_entering = this;
  effnet_fast_switch_stack(&scheduler_, fiber_);
}
void Fiber::suspend() { effnet_fast_switch_stack(&fiber_, scheduler_); }

#else

void Fiber::resume() {
  g_entering = this;
  swapcontext(&scheduler_, &fiber_);
}
void Fiber::suspend() { swapcontext(&fiber_, &scheduler_); }

#endif

void Fiber::start(void (*function)(void*), void* argument) {
  if (!stack_) {
    void* memory =
        mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    stack_ = static_cast<char*>(memory);
    mprotect(stack_, 4096, PROT_NONE);  // an overflow stops here, not in another thread's stack
  }
  function_ = function;
  argument_ = argument;
#if defined(__x86_64__)
  fiber_ = initial_stack(stack_, kStackBytes, &Fiber::enter);
#else
  getcontext(&fiber_);
  fiber_.uc_stack.ss_sp = stack_;
  fiber_.uc_stack.ss_size = kStackBytes;
  fiber_.uc_link = nullptr;
  makecontext(&fiber_, &Fiber::enter, 0);
#endif
}

}  // namespace effnet_fast::emulation
