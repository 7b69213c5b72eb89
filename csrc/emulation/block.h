// The threads of one block: a fiber each, run one at a time in a random order until they wait or return.
#pragma once

#include <cstdint>
#include <deque>
#include <source_location>
#include <stdexcept>
#include <string>
#include <vector>

#include "../cuda/launch.h"
#include "fiber.h"
#include "global_memory.h"
#include "shared_memory.h"

namespace effnet_fast::emulation {

using Site = std::source_location;

// What Python raises: kernel, block, thread, file and line, and what was wrong.
struct EmulationError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 1) {}
  size_t below(size_t count) {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return static_cast<size_t>(state_ >> 33) % count;
  }

 private:
  uint64_t state_;
};

struct Launch {
  std::string kernel;
  cuda::LaunchShape shape;
  void (*body)(const void* args);
  const void* args;
};

class Block {
 public:
  Block(GlobalMemory& global, Random& random) : global_(global), shared_(clock_), random_(random) {}

  void run(const Launch& launch, const cuda::Extent& index);  // throws EmulationError

  // From the running thread. fail() does not return to the kernel.
  int thread() const { return thread_; }
  void sync_threads(Site site);
  void sync_warp(Site site);
  // Gathers one operand of each of the 32 lanes and runs `operation` on them once.
  void collective(const char* name, void* operand, void (*operation)(void** operands), Site site);

  void grid_dependency_wait() { threads_[static_cast<size_t>(thread_)].waited = true; }
  void load_global(const void* address, int bytes, bool coherent, void* value, Site site);
  void load_constant(const void* address, int bytes, void* value, Site site);
  int atomic_add(void* address, int value, Site site);
  void store_global(void* address, int bytes, const void* value, Site site);
  void load_shared(uint32_t address, int bytes, void* value, Site site);
  void store_shared(uint32_t address, int bytes, const void* value, Site site);
  void cp_async(uint32_t to, const void* from, int bytes, bool inside, Site site);
  void cp_async_commit();
  void cp_async_wait(int groups);

 private:
  enum class State { kReady, kBarrier, kWarp, kReturned };
  struct Copy {
    uint32_t to;
    const void* from;
    int bytes, group;
    Site site;
  };
  struct Thread {
    Fiber fiber;
    State state;
    const char* waits_for;
    Site site;
    void* operand;
    std::vector<Copy> copies;
    int group;    // that the next cp.async belongs to
    bool waited;  // for the launch before
  };

  static void thread_main(void* block);
  void wait(State state, const char* what, Site site);
  void wake(int thread);
  void require_same(int other, const char* what, Site site);
  [[noreturn]] void fail(const std::string& problem, Site site);
  void check(const char* access, const std::string& problem, Site site);
  void require_waited(const char* access, Site site);
  std::string describe(int thread, Site site, const std::string& problem) const;
  std::string describe_deadlock() const;

  GlobalMemory& global_;
  Clock clock_;
  SharedMemory shared_;
  Random& random_;
  const Launch* launch_ = nullptr;
  cuda::Extent index_;
  std::deque<Thread> threads_;  // kept from block to block for their stacks
  int count_ = 0, thread_ = 0, at_barrier_ = 0;
  std::vector<int> arrived_;  // lanes at the collective of each warp
  std::vector<int> ready_;
  std::string failure_;
};

// The block whose thread is running.
inline Block* g_block = nullptr;

}  // namespace effnet_fast::emulation

namespace effnet_fast::cuda {
// CUDA's names, of the running thread.
inline Extent threadIdx, blockIdx, blockDim, gridDim;
}  // namespace effnet_fast::cuda
