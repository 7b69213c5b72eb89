// Which kernels a layer launches, and with how many threads and bytes, by the library's own launch code.
//
// Reads a layer a line and answers with a line for each of its launches, then an empty one:
//   operator storage n c h w kernel stride top left bottom right out_channels inner_channels squeeze gate residual
//   activation image multiprocessors shared_bytes_of_a_multiprocessor
//   -> kernel <tab> threads <tab> shared bytes
// Before the first it lists what a thread of each depthwise kernel makes in a turn of its inner loop:
//   kernel <tab> outputs of a turn <tab> copies of 16 bytes into shared memory for an output
//
// Compiled as the emulator is, so that a C++ compiler is enough; no kernel is run.
#include <cstdint>
#include <iostream>
#include <sstream>
#include <string>
#include <typeinfo>

#include "../../csrc/cuda/depthwise_conv_gate_launch.h"
#include "../../csrc/cuda/expand_depthwise_launch.h"
#include "../../csrc/cuda/head_pool_launch.h"
#include "../../csrc/cuda/pointwise_conv_launch.h"
#include "../../csrc/cuda/squeeze_excite_gate_launch.h"
#include "../../csrc/cuda/stem_block_launch.h"
#include "../../csrc/cuda/stem_conv_launch.h"

#include <cxxabi.h>

using namespace effnet_fast;
using namespace effnet_fast::cuda;

namespace {

template <auto kKernel>
struct Name {};

template <class T>
std::string name_of() {
  return abi::__cxa_demangle(typeid(T).name(), nullptr, nullptr, nullptr);
}

// The launcher of launch.h that only says what it is given.
struct Recorder {
  template <auto kKernel, class Args>
  void run(const LaunchShape& shape, const Args&) {
    if (shape.grid.count() == 0) return;
    std::cout << name_of<Name<kKernel>>() << '\t' << shape.threads << '\t' << shape.shared_bytes << '\n';
  }
};

// A tensor that is there, as aligned as PyTorch's allocations are. Nothing reads it.
template <class T = void>
T* some() {
  return reinterpret_cast<T*>(uintptr_t{1} << 20);
}

struct Layer {
  std::string op, storage, activation, image;
  ConvGeometry geometry;
  int64_t out_channels, inner_channels, squeeze, gate, residual, multiprocessors, shared_bytes;
};

std::istream& operator>>(std::istream& in, Layer& layer) {
  ConvGeometry& g = layer.geometry;
  return in >> layer.op >> layer.storage >> g.n >> g.c >> g.h >> g.w >> g.kernel >> g.stride >> g.top >> g.left >>
         g.bottom >> g.right >> layer.out_channels >> layer.inner_channels >> layer.squeeze >> layer.gate >>
         layer.residual >> layer.activation >> layer.image >> layer.multiprocessors >> layer.shared_bytes;
}

DType parse_dtype(const std::string& name) {
  if (name == "float16") return DType::kFloat16;
  if (name == "bfloat16") return DType::kBFloat16;
  return name == "uint8" ? DType::kUInt8 : DType::kFloat32;
}

DepthwiseConvCall depthwise_call(const Layer& layer) {
  return {
      layer.geometry, layer.multiprocessors, parse_activation(layer.activation), some(), some(), some<float>(), some(),
      nullptr};
}

// What the fused kernel does not take is composed of the layers that are listed anyway.
template <class T>
void launch_expansion(const Layer& layer, Recorder& recorder) {
  ExpandDepthwiseCall call{};
  call.shape.geometry = layer.geometry;
  call.shape.geometry.c = layer.out_channels;
  call.shape.in_channels = layer.geometry.c;
  call.shape.sums = layer.op == "expand_depthwise_pool";
  call.shape.multiprocessors = layer.multiprocessors;
  call.shape.multiprocessor_shared_bytes = layer.shared_bytes;
  call.expand_activation = call.activation = parse_activation(layer.activation);
  call.x = call.weight = some();
  call.expand = call.taps = some<uint32_t>();
  call.bias = some<float>();
  call.y = some();
  call.sums = call.shape.sums ? some<float>() : nullptr;
  const ExpandDepthwisePlan plan = plan_expand_depthwise(call, sizeof(T) == 2);
  if constexpr (sizeof(T) == 2) {
    if (plan.variant >= 0) launch_expand_depthwise<T>(call, plan, recorder);
  }
}

// What the fused kernel does not take is composed of the layers that are listed anyway.
template <class T>
void launch_first_block(const Layer& layer, Recorder& recorder) {
  StemBlockCall call{};
  call.stem.geometry = layer.geometry;
  call.stem.out_channels = layer.inner_channels;
  call.stem.activation = parse_activation(layer.activation);
  call.stem.image_dtype = parse_dtype(layer.image);
  call.stem.image = call.stem.weight = some();
  call.stem.bias = call.b_filter = call.b_project = some<float>();
  call.filter = 3;  // as in every first block of EfficientNet
  call.w_filter = call.w_project = some();
  call.out_channels = layer.op == "stem_block" ? layer.out_channels : 0;
  call.gate = layer.gate ? some<float>() : nullptr;
  call.y = some();
  call.sums = some<float>();
  if constexpr (sizeof(T) == 2) {
    if (stem_block_is_fused<T>(call)) launch_stem_block<T>(call, recorder);
  }
}

template <class T>
bool launch(const Layer& layer, Recorder& recorder) {
  const ConvGeometry& g = layer.geometry;
  const Activation activation = parse_activation(layer.activation);
  if (layer.op == "depthwise_conv") {
    launch_depthwise_conv<T>(depthwise_call(layer), recorder);
  } else if (layer.op == "depthwise_conv_gate") {
    DepthwiseConvGateCall call;
    call.convolution = depthwise_call(layer);
    call.squeeze = layer.squeeze;
    call.squeeze_activation = activation;
    call.gate = Gate::kSigmoid;
    call.w1 = call.b1 = call.w2 = call.b2 = some<float>();
    call.gates = some<float>();
    call.tickets = some<int>();
    call.workspace = some<float>();
    launch_depthwise_conv_gate<T>(call, recorder);
  } else if (layer.op.starts_with("expand_depthwise")) {
    launch_expansion<T>(layer, recorder);
  } else if (layer.op == "pointwise_conv") {
    PointwiseConvCall call{};
    call.images = g.n;
    call.pixels = g.h * g.w;
    call.channels = g.c;
    call.out_channels = layer.out_channels;
    call.multiprocessors = layer.multiprocessors;
    call.multiprocessor_shared_bytes = layer.shared_bytes;
    call.activation = activation;
    call.x = call.weight = some();
    call.bias = some<float>();
    call.gate = layer.gate ? some<float>() : nullptr;
    call.residual = layer.residual ? some() : nullptr;
    call.y = some();
    launch_pointwise_conv<T>(call, recorder);
  } else if (layer.op == "stem_conv") {
    StemConvCall call{};
    call.geometry = g;
    call.out_channels = layer.out_channels;
    call.multiprocessors = layer.multiprocessors;
    call.activation = activation;
    call.image_dtype = parse_dtype(layer.image);
    call.image = call.weight = some();
    call.bias = some<float>();
    call.y = some();
    launch_stem_conv<T>(call, recorder);
  } else if (layer.op.starts_with("stem_block")) {
    launch_first_block<T>(layer, recorder);
  } else if (layer.op == "head_pool") {
    HeadPoolCall call{};
    call.images = g.n;
    call.pixels = g.h * g.w;
    call.channels = g.c;
    call.out_channels = layer.out_channels;
    call.multiprocessors = layer.multiprocessors;
    call.multiprocessor_shared_bytes = layer.shared_bytes;
    call.activation = activation;
    call.x = call.weight = some();
    call.bias = some<float>();
    call.y = some<float>();
    launch_head_pool<T>(call, recorder);
  } else {
    return false;
  }
  return true;
}

template <class T, int kKernel, int kStride, bool kSilu>
void list_turn() {
  using Traits = DepthwiseConvTraits<T, kKernel, kStride, kSilu>;
  // As in the widest block: halos are staged by each.
  constexpr double kStaged = Traits::staged_columns(Traits::kMaxGroups);
  constexpr double kCopies = kStaged * kStride / (Traits::kMaxGroups * Traits::kColumns) / kVector<T>;
  std::cout << name_of<Name<&depthwise_conv_kernel<Traits>>>() << '\t'
            << Traits::kLive * Traits::kColumns * Traits::kChannels << '\t' << kCopies << '\n';
}

template <class T, bool kSilu>
void list_turns() {
  list_turn<T, 3, 1, kSilu>();
  list_turn<T, 3, 2, kSilu>();
  list_turn<T, 5, 1, kSilu>();
  list_turn<T, 5, 2, kSilu>();
  list_turn<T, 7, 1, kSilu>();
  list_turn<T, 7, 2, kSilu>();
}

}  // namespace

int main() {
  list_turns<half, true>();
  list_turns<half, false>();
  list_turns<cuda::bfloat16, true>();
  list_turns<cuda::bfloat16, false>();
  list_turns<float, false>();
  std::cout << '\n';
  Recorder recorder;
  for (std::string line; std::getline(std::cin, line);) {
    Layer layer;
    std::istringstream words(line);
    if (!(words >> layer)) {
      std::cerr << "launches: cannot be read: " << line << '\n';
      return 1;
    }
    bool known = false;
    with_storage(parse_dtype(layer.storage), [&]<class T>() { known = launch<T>(layer, recorder); });
    if (!known) {
      std::cerr << "launches: no operator " << layer.op << '\n';
      return 1;
    }
    std::cout << '\n';
  }
  return 0;
}
