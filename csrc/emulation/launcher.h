// The launcher of csrc/cuda/launch.h that runs kernels on this CPU.
#pragma once

#include <string>
#include <string_view>

#include "block.h"

namespace effnet_fast::emulation {

class Launcher {
 public:
  explicit Launcher(uint64_t seed) : random_(seed), block_(memory_, random_) {}

  template <auto kKernel, class Args>
  void run(const cuda::LaunchShape& shape, const Args& args) {
    run({kernel_name(__PRETTY_FUNCTION__), shape, [](const void* a) { kKernel(*static_cast<const Args*>(a)); }, &args});
  }

  GlobalMemory& memory() { return memory_; }
  int64_t blocks() const { return blocks_; }

 private:
  void run(const Launch& launch);
  static std::string kernel_name(std::string_view pretty_function);

  GlobalMemory memory_;
  Random random_;
  Block block_;
  int64_t blocks_ = 0;  // run so far
};

}  // namespace effnet_fast::emulation
