#include "launcher.h"

#include <array>
#include <mutex>
#include <sstream>
#include <stdexcept>
#include <string>

namespace effnet_fast::cuda {
namespace {

constexpr int kMaxDevices = 64;  // bits of Kernel::opted_in
constexpr unsigned kSharedWithoutOptIn = 48 << 10;

// "... [with auto kKernel = effnet_fast::cuda::name<...>; Args = ...]" gives "name<...>".
std::string kernel_name(std::string_view pretty_function) {
  const size_t begin = pretty_function.find("kKernel = ");
  if (begin == std::string_view::npos) return std::string(pretty_function);
  std::string name(pretty_function.substr(begin + 10, pretty_function.rfind("; Args = ") - begin - 10));
  for (const std::string_view noise : {"effnet_fast::cuda::", "&", "(", ")"}) {
    for (size_t at; (at = name.find(noise)) != std::string::npos;) name.erase(at, noise.size());
  }
  return name;
}

// Throws what `status` says of what describe() names, and takes it back from the runtime: else a later call would be
// blamed for it.
template <class Describe>
void check(cudaError_t status, Describe&& describe) {
  if (status == cudaSuccess) return;
  cudaGetLastError();
  std::ostringstream message;
  message << "effnet_fast" << describe() << ": " << cudaGetErrorString(status) << " (" << cudaGetErrorName(status)
          << ")";
  throw std::runtime_error(message.str());
}

}  // namespace

Launcher::Launcher(std::string_view op, int device, cudaStream_t stream)
    : op_(op), device_(device), stream_(stream), properties_(properties_of(device)) {}

Launcher::Properties Launcher::properties_of(int device) {
  static std::array<Properties, kMaxDevices> known;
  static std::array<std::once_flag, kMaxDevices> asked;
  if (device < 0 || device >= kMaxDevices) throw std::runtime_error("effnet_fast: the device has a number above 63");
  const auto ask = [&] {
    const auto attribute = [&](cudaDeviceAttr name) {
      int value = 0;
      check(cudaDeviceGetAttribute(&value, name, device), [] { return std::string(": asking a GPU what it is"); });
      return value;
    };
    known[device] = {attribute(cudaDevAttrMultiProcessorCount), attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor),
                     attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin), attribute(cudaDevAttrComputeCapabilityMajor)};
  };
  std::call_once(asked[device], ask);
  return known[device];
}

void Launcher::run(const Kernel& kernel, const LaunchShape& shape, const void* args) {
  if (shape.grid.count() == 0) return;
  const auto describe = [&] {
    std::ostringstream what;
    what << "::" << op_ << ": kernel " << kernel_name(kernel.pretty_function) << " with a grid of " << shape.grid.x
         << " x " << shape.grid.y << " x " << shape.grid.z << " blocks, " << shape.threads << " threads and "
         << shape.shared_bytes << " bytes of shared memory";
    return what.str();
  };
  const uint64_t bit = uint64_t{1} << device_;
  if (shape.shared_bytes > kSharedWithoutOptIn && !(kernel.opted_in->load(std::memory_order_relaxed) & bit)) {
    check(cudaFuncSetAttribute(kernel.function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               properties_.block_shared_bytes),
          describe);
    kernel.opted_in->fetch_or(bit, std::memory_order_relaxed);
  }
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = {shape.grid.x, shape.grid.y, shape.grid.z};
  config.blockDim = {shape.threads, 1, 1};
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream_;
  config.attrs = &attribute;
  config.numAttrs = shape.dependent_launch && properties_.major >= 9 ? 1 : 0;
  void* arguments[] = {const_cast<void*>(args)};
  check(cudaLaunchKernelExC(&config, kernel.function, arguments), describe);
}

}  // namespace effnet_fast::cuda
