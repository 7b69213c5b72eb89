#include "team.h"

#include <cstdlib>
#include <cstring>
#include <utility>

namespace effnet_fast {
namespace {

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Pauses before a thread sleeps: 30 to 90 us, which is longer than the parts of a loop differ. None where OpenMP is
// told the same.
int spins() {
  static const int count = [] {
    const char* policy = std::getenv("OMP_WAIT_POLICY");
    const bool passive = policy && (!std::strcmp(policy, "passive") || !std::strcmp(policy, "PASSIVE"));
    return passive ? 0 : 2000;
  }();
  return count;
}

// What `value` holds once it is not `old` any more.
uint32_t wait_while(const std::atomic<uint32_t>& value, uint32_t old) {
  uint32_t now = value.load(std::memory_order_acquire);
  for (int spun = 0; now == old && spun < spins(); spun++) {
    pause();
    now = value.load(std::memory_order_acquire);
  }
  while (now == old) {
    value.wait(old, std::memory_order_acquire);
    now = value.load(std::memory_order_acquire);
  }
  return now;
}

}  // namespace

void Team::run(int64_t n, Body body, void* context) {
  n_ = n, body_ = body, context_ = context;
  done_.store(0, std::memory_order_relaxed);
  const uint32_t loop = loop_.load(std::memory_order_relaxed) + 1;
  loop_.store(loop, std::memory_order_release);
  loop_.notify_all();
  for (int64_t part = 0; part < members_; part++) take(part, loop);
  for (uint32_t done = done_.load(std::memory_order_acquire); done != members_;) done = wait_while(done_, done);
  if (error_) {
    failed_.clear(std::memory_order_relaxed);
    std::rethrow_exception(std::exchange(error_, nullptr));
  }
}

void Team::dismiss() {
  loop_.store(kDismissed, std::memory_order_release);
  loop_.notify_all();
}

void Team::serve(int64_t member) {
  for (uint32_t seen = 0;;) {
    const uint32_t loop = wait_while(loop_, seen);
    if (loop == kDismissed) return;
    take(member, loop);
    seen = loop;
  }
}

// Late comers find the part taken: then the loop may be over, and n_ and what goes with it those of another one.
void Team::take(int64_t part, uint32_t loop) {
  uint32_t before = loop - 1;
  if (!parts_[part].taken.compare_exchange_strong(before, loop, std::memory_order_acq_rel)) return;
  const int64_t begin = n_ * part / members_, end = n_ * (part + 1) / members_;
  try {
    if (begin < end) body_(begin, end, context_);
  } catch (...) {
    if (!failed_.test_and_set()) error_ = std::current_exception();
  }
  done_.fetch_add(1, std::memory_order_acq_rel);
  done_.notify_one();
}

}  // namespace effnet_fast
