// What a launch is, for both of those that make one: the library (cudaLaunchKernelEx) and the emulator. Torch-free.
//
// <op>_launch.h turns the shape of a call into launches:
//
//   template <class Launcher>
//   void launch_<op>(const <Op>Call& call, Launcher& launcher) {
//     ...
//     launcher.template run<&<op>_kernel<Traits>>(LaunchShape{...}, args);
//   }
//
// A Launcher has one member, `template <auto kKernel, class Args> void run(const LaunchShape&, const Args&)`: it
// launches kKernel(args), in order after the launches before it, or throws. A launch with an empty grid is skipped
// by the launcher, so that a batch of no images needs no special case.
#pragma once

#include <cstdint>

#include "../common/activation.h"
#include "../common/dtype.h"

namespace effnet_fast::cuda {

struct Extent {
  unsigned x = 1, y = 1, z = 1;
  constexpr int64_t count() const { return static_cast<int64_t>(x) * y * z; }
};

struct LaunchShape {
  Extent grid;
  unsigned threads = 0;       // of a block, along x; a multiple of 32
  unsigned shared_bytes = 0;  // dynamic; above 48 KiB the library opts in
  // The kernel calls grid_dependency_wait() before it touches what the launch before it wrote, so that it may start
  // while that one drains (programmatic dependent launch, from sm_90; elsewhere nothing changes). Before it waits, it
  // may only load_constant() and cp_async() weights: the launch before may write, or still read, anything else.
  bool dependent_launch = false;
};

// y and z of a grid end at 65535, so that images, whose number is the caller's, go to x.
inline constexpr unsigned grid_extent(int64_t count) { return static_cast<unsigned>(count); }

// For accesses of 16 bytes.
inline bool is_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

inline constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline constexpr int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }

// Calls function.template operator()<kActivation>() for the activation of a call.
template <class Function>
void with_activation(Activation activation, Function&& function) {
  switch (activation) {
    case Activation::kIdentity: return function.template operator()<Activation::kIdentity>();
    case Activation::kRelu: return function.template operator()<Activation::kRelu>();
    case Activation::kRelu6: return function.template operator()<Activation::kRelu6>();
    case Activation::kSilu: return function.template operator()<Activation::kSilu>();
    case Activation::kHardswish: return function.template operator()<Activation::kHardswish>();
  }
}

}  // namespace effnet_fast::cuda
