// The launcher of launch.h that runs kernels on a GPU. Torch-free.
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <cstdint>
#include <string_view>

#include "launch.h"

namespace effnet_fast::cuda {

class Launcher {
 public:
  // Launches go to `stream` of `device`, which is the current one. `op` is named when one fails.
  Launcher(std::string_view op, int device, cudaStream_t stream);

  // Throws std::runtime_error with operator, kernel, shape and CUDA's own message.
  template <auto kKernel, class Args>
  void run(const LaunchShape& shape, const Args& args) {
    static std::atomic<uint64_t> opted_in{0};  // a bit for each device on which this kernel may use all shared memory
    run({reinterpret_cast<const void*>(kKernel), __PRETTY_FUNCTION__, &opted_in}, shape, &args);
  }

  int64_t multiprocessors() const { return properties_.multiprocessors; }
  int64_t multiprocessor_shared_bytes() const { return properties_.multiprocessor_shared_bytes; }

 private:
  struct Kernel {
    const void* function;
    std::string_view pretty_function;  // of run(), which has the kernel's name in it
    std::atomic<uint64_t>* opted_in;
  };
  struct Properties {
    int multiprocessors, multiprocessor_shared_bytes, block_shared_bytes, major;
  };

  void run(const Kernel& kernel, const LaunchShape& shape, const void* args);
  static Properties properties_of(int device);

  std::string_view op_;
  int device_;
  cudaStream_t stream_;
  Properties properties_;
};

}  // namespace effnet_fast::cuda
