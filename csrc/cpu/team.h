// Threads that stay together over many parallel loops, for a program: a loop is handed over in 0.2 us, where opening a
// region of PyTorch's pool takes 1 to 2 us, and a network at batch 1 has forty. Torch-free.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>

namespace effnet_fast {

// One thread leads (`run`, then `dismiss`), any number of others serve. A loop is cut into as many parts as the team
// has members; each takes the part of its own number, so that it finds in its caches what it wrote there before, and
// the leader whatever nobody has begun. So the leader never waits for a thread that has not come: without any the
// loop is done all the same.
class Team {
 public:
  using Body = void (*)(int64_t begin, int64_t end, void* context);

  explicit Team(int64_t members) : members_(members), parts_(new Part[members]) {}

  int64_t members() const { return members_; }

  // The leader: body over [0, n). What a part throws is thrown here, when all of them are done.
  void run(int64_t n, Body body, void* context);

  // The leader, at last: lets the others go.
  void dismiss();

  // Anybody else: the part `member` of every loop, until dismissed.
  void serve(int64_t member);

 private:
  static constexpr uint32_t kDismissed = UINT32_MAX;

  // The last loop in which somebody took this part. Every part of a loop is taken before the next one begins.
  struct alignas(64) Part {
    std::atomic<uint32_t> taken{0};
  };

  void take(int64_t part, uint32_t loop);

  const int64_t members_;
  const std::unique_ptr<Part[]> parts_;
  int64_t n_ = 0;
  Body body_ = nullptr;
  void* context_ = nullptr;
  std::exception_ptr error_;
  alignas(64) std::atomic<uint32_t> loop_{0};  // its number, from 1
  alignas(64) std::atomic<uint32_t> done_{0};  // parts
  std::atomic_flag failed_;
};

}  // namespace effnet_fast
