// csrc/cuda/launcher.h for Python over a CUDA runtime that only notes what it is asked: no GPU and no PyTorch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "../../csrc/cuda/launcher.h"

namespace py = pybind11;
using namespace effnet_fast::cuda;

static std::vector<std::string> g_log;
static int g_major = 9;
static cudaError_t g_launch_status = cudaSuccess;

struct Args {
  int value;
};
static void first_kernel(const Args&) {}
template <int kWidth>
static void second_kernel(const Args&) {}

extern "C" {
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device == 63) return cudaErrorInvalidDevice;
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = 132; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = 233472; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 232448; break;
    case cudaDevAttrComputeCapabilityMajor: *value = g_major; break;
    default: return cudaErrorInvalidValue;
  }
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute attribute, int value) {
  g_log.push_back("attribute " + std::to_string(attribute) + " = " + std::to_string(value));
  return cudaSuccess;
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void*, void** args) {
  g_log.push_back("launch " + std::to_string(config->gridDim.x) + " " + std::to_string(config->gridDim.y) + " " +
                  std::to_string(config->gridDim.z) + ", " + std::to_string(config->blockDim.x) + " threads, " +
                  std::to_string(config->dynamicSmemBytes) + " bytes, dependent " + std::to_string(config->numAttrs) +
                  ", args " + std::to_string(static_cast<const Args*>(args[0])->value));
  return g_launch_status;
}
cudaError_t cudaGetLastError() {
  g_log.push_back("taken back");
  return cudaSuccess;
}
const char* cudaGetErrorString(cudaError_t) { return "too many resources"; }
const char* cudaGetErrorName(cudaError_t) { return "cudaErrorName"; }
}

PYBIND11_MODULE(effnet_fast_launcher, m) {
  // Runs one of the kernels; gives what the runtime was asked. `major` counts when a device is first used.
  m.def(
      "run",
      [](bool second, std::vector<unsigned> grid, unsigned shared_bytes, bool dependent, int device, int major,
         bool fail) {
        g_log.clear();
        g_major = major;
        g_launch_status = fail ? cudaErrorLaunchOutOfResources : cudaSuccess;
        Launcher launcher("some_op", device, nullptr);
        const LaunchShape shape{{grid[0], grid[1], grid[2]}, 128, shared_bytes, dependent};
        if (second)
          launcher.run<&second_kernel<3>>(shape, Args{7});
        else
          launcher.run<&first_kernel>(shape, Args{7});
        return g_log;
      },
      py::arg("second") = false, py::arg("grid") = std::vector<unsigned>{5, 2, 1}, py::arg("shared_bytes") = 1024,
      py::arg("dependent") = false, py::arg("device") = 0, py::arg("major") = 9, py::arg("fail") = false);
  m.def("log", [] { return g_log; });
}
