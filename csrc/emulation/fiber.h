// Fibers: functions with a stack of their own that give control back in the middle. One per emulated thread.
#pragma once

#include <cstddef>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace effnet_fast::emulation {

class Fiber {
 public:
  Fiber() = default;
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // The next resume() calls function(argument) from its beginning, whatever the fiber was doing. It must not return.
  void start(void (*function)(void*), void* argument);
  void resume();   // from the scheduler: run until the fiber suspends
  void suspend();  // from the fiber: back to the scheduler

 private:
  // Address space, of which a kernel touches a few pages: one with large tiles in registers spills them here.
  static constexpr size_t kStackBytes = 256 << 10;
  static void enter();

  char* stack_ = nullptr;
  void (*function_)(void*) = nullptr;
  void* argument_ = nullptr;
#if defined(__x86_64__)
  void* fiber_ = nullptr;  // the stack pointer of who is not running
  void* scheduler_ = nullptr;
#else
  ucontext_t fiber_, scheduler_;
#endif
};

}  // namespace effnet_fast::emulation
