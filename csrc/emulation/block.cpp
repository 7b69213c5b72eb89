#include "block.h"

#include <filesystem>
#include <map>
#include <string_view>
#include <utility>

namespace effnet_fast::emulation {

static std::string text(const cuda::Extent& e) {
  return "(" + std::to_string(e.x) + ", " + std::to_string(e.y) + ", " + std::to_string(e.z) + ")";
}
static std::string text(Site site) {
  const std::string file = std::filesystem::path(site.file_name()).lexically_normal();
  const size_t repository = file.rfind("csrc/");
  return file.substr(repository != std::string::npos ? repository : file.rfind('/') + 1) + ":" +
         std::to_string(site.line());
}

void Block::thread_main(void* block) {
  Block& self = *static_cast<Block*>(block);
  self.launch_->body(self.launch_->args);
  Thread& thread = self.threads_[static_cast<size_t>(self.thread_)];
  if (!thread.copies.empty()) self.fail("a cp.async that was never waited for", thread.copies[0].site);
  thread.state = State::kReturned;
  thread.fiber.suspend();
}

void Block::run(const Launch& launch, const cuda::Extent& index) {
  launch_ = &launch;
  index_ = index;
  count_ = static_cast<int>(launch.shape.threads);
  while (static_cast<int>(threads_.size()) < count_) threads_.emplace_back();
  clock_.start_block(count_ / 32);
  global_.start_block();
  shared_.start_block(launch.shape.shared_bytes);
  arrived_.assign(static_cast<size_t>(count_ / 32), 0);
  ready_.clear();
  at_barrier_ = 0;
  failure_.clear();
  for (int i = 0; i < count_; i++) {
    Thread& thread = threads_[static_cast<size_t>(i)];
    thread.copies.clear();
    thread.group = 0;
    thread.waited = !launch.shape.dependent_launch;
    thread.fiber.start(&Block::thread_main, this);
    wake(i);
  }
  g_block = this;
  cuda::blockIdx = index;
  cuda::gridDim = launch.shape.grid;
  cuda::blockDim = {launch.shape.threads, 1, 1};
  for (int returned = 0; returned < count_;) {
    if (ready_.empty()) throw EmulationError(describe_deadlock());
    std::swap(ready_[random_.below(ready_.size())], ready_.back());
    thread_ = ready_.back();
    ready_.pop_back();
    cuda::threadIdx = {static_cast<unsigned>(thread_), 0, 0};
    Thread& thread = threads_[static_cast<size_t>(thread_)];
    thread.fiber.resume();
    if (!failure_.empty()) throw EmulationError(failure_);
    returned += thread.state == State::kReturned;
  }
}

void Block::wait(State state, const char* what, Site site) {
  Thread& thread = threads_[static_cast<size_t>(thread_)];
  thread.state = state;
  thread.waits_for = what;
  thread.site = site;
  thread.fiber.suspend();
}

void Block::wake(int thread) {
  threads_[static_cast<size_t>(thread)].state = State::kReady;
  ready_.push_back(thread);
}

// The running thread came to `what`; threads that came before it must have come to the same.
void Block::require_same(int other, const char* what, Site site) {
  const Thread& first = threads_[static_cast<size_t>(other)];
  if (first.waits_for == std::string_view(what) && first.site.line() == site.line()) return;
  fail("diverged: at " + std::string(what) + " while thread " + std::to_string(other) + " waits at " + first.waits_for +
           " (" + text(first.site) + ")",
       site);
}

void Block::sync_threads(Site site) {
  if (at_barrier_++ > 0) {
    for (int i = 0; i < count_; i++) {
      if (threads_[static_cast<size_t>(i)].state == State::kBarrier) {
        require_same(i, "sync_threads", site);
        break;
      }
    }
  }
  if (at_barrier_ == count_) {
    at_barrier_ = 0;
    clock_.release_block();
    for (int i = 0; i < count_; i++) {
      if (i != thread_) wake(i);
    }
    wake(thread_);
    threads_[static_cast<size_t>(thread_)].fiber.suspend();
  } else {
    wait(State::kBarrier, "sync_threads", site);
  }
}

void Block::collective(const char* name, void* operand, void (*operation)(void**), Site site) {
  const int warp = thread_ / 32, first = warp * 32;
  threads_[static_cast<size_t>(thread_)].operand = operand;
  int& arrived = arrived_[static_cast<size_t>(warp)];
  if (arrived++ > 0) {
    int other = first;
    while (threads_[static_cast<size_t>(other)].state != State::kWarp) other++;
    require_same(other, name, site);
  }
  if (arrived < 32) return wait(State::kWarp, name, site);
  arrived = 0;
  void* operands[32];
  for (int lane = 0; lane < 32; lane++) {
    operands[lane] = threads_[static_cast<size_t>(first + lane)].operand;
    if (first + lane != thread_) wake(first + lane);
  }
  operation(operands);
}

void Block::sync_warp(Site site) {
  collective("sync_warp", nullptr, [](void**) { g_block->clock_.release_warp(g_block->thread_ / 32); }, site);
}

void Block::load_global(const void* address, int bytes, bool coherent, void* value, Site site) {
  require_waited("load", site);
  check("load of ", global_.read(address, bytes, coherent, value), site);
}
void Block::load_constant(const void* address, int bytes, void* value, Site site) {
  check("load_constant of ", global_.read(address, bytes, false, value), site);
  if (!global_.is_weights(address)) fail("load_constant of what is not weights: a launch may be writing it", site);
}
void Block::store_global(void* address, int bytes, const void* value, Site site) {
  require_waited("store", site);
  check("store of ", global_.write(address, bytes, value), site);
}
int Block::atomic_add(void* address, int value, Site site) {
  require_waited("atomic_add", site);
  int before = 0;
  check("atomic_add to ", global_.add(address, value, &before), site);
  return before;
}
void Block::load_shared(uint32_t address, int bytes, void* value, Site site) {
  check("load of ", shared_.read(address, bytes, thread_, site.line(), value), site);
}
void Block::store_shared(uint32_t address, int bytes, const void* value, Site site) {
  check("store of ", shared_.write(address, bytes, thread_, site.line(), value), site);
}

void Block::cp_async(uint32_t to, const void* from, int bytes, bool inside, Site site) {
  if (inside) {
    check("cp.async of ", global_.check(from, bytes), site);
    if (!global_.is_weights(from)) require_waited("cp.async", site);
  }
  check("cp.async to ", shared_.begin_copy(to, bytes, thread_, site.line()), site);
  Thread& thread = threads_[static_cast<size_t>(thread_)];
  thread.copies.push_back({to, inside ? from : nullptr, bytes, thread.group, site});
}
void Block::cp_async_commit() { threads_[static_cast<size_t>(thread_)].group++; }
void Block::cp_async_wait(int groups) {
  Thread& thread = threads_[static_cast<size_t>(thread_)];
  const auto done = [&](const Copy& copy) { return copy.group < thread.group - groups; };
  for (const Copy& copy : thread.copies) {
    if (done(copy)) shared_.end_copy(copy.to, copy.bytes, copy.from);
  }
  std::erase_if(thread.copies, done);
}

void Block::check(const char* access, const std::string& problem, Site site) {
  if (!problem.empty()) fail(access + problem, site);
}

void Block::require_waited(const char* access, Site site) {
  if (threads_[static_cast<size_t>(thread_)].waited) return;
  fail(std::string(access) + " before grid_dependency_wait(), in a dependent launch", site);
}

void Block::fail(const std::string& problem, Site site) {
  failure_ = describe(thread_, site, problem);
  threads_[static_cast<size_t>(thread_)].fiber.suspend();
  __builtin_unreachable();
}

std::string Block::describe(int thread, Site site, const std::string& problem) const {
  return launch_->kernel + ": block " + text(index_) + ", thread " + std::to_string(thread) + ", " + text(site) + ": " +
         problem;
}

std::string Block::describe_deadlock() const {
  std::map<std::string, int> counts;
  int first = -1;
  for (int i = 0; i < count_; i++) {
    const Thread& thread = threads_[static_cast<size_t>(i)];
    const bool returned = thread.state == State::kReturned;
    counts[returned ? "returned" : std::string("wait at ") + thread.waits_for + " (" + text(thread.site) + ")"]++;
    if (!returned && first < 0) first = i;
  }
  std::string problem = "deadlock:";
  for (const auto& [what, count] : counts) problem += " " + std::to_string(count) + " threads " + what + ",";
  problem.pop_back();
  return describe(first, threads_[static_cast<size_t>(first)].site, problem);
}

}  // namespace effnet_fast::emulation
