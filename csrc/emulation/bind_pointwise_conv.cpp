#include "../cuda/pointwise_conv_launch.h"
#include "counter.h"
#include "operators.h"

namespace effnet_fast::emulation {

using cuda::PointwiseTile;

static const char* const kTiles[] = {"fma",           "rows",          "resident64x128", "resident128x64",
                                     "staged128x256", "staged256x128", "staged128x128",  "staged128x64",
                                     "staged64x64",   "split16x32",    "split16x16"};  // as in PointwiseTile

static PointwiseTile parse_tile(const std::string& name) {
  for (size_t i = 0; i < std::size(kTiles); i++) {
    if (name == kTiles[i]) return static_cast<PointwiseTile>(i);
  }
  throw std::invalid_argument("no tile is called '" + name + "'");
}

static cuda::PointwiseConvCall shape_of(Arguments& arguments) {
  cuda::PointwiseConvCall call{};
  call.images = arguments.integer("n");
  call.pixels = arguments.integer("pixels");
  call.channels = arguments.integer("c");
  call.out_channels = arguments.integer("o");
  call.multiprocessors = arguments.integer("multiprocessors");
  call.multiprocessor_shared_bytes = arguments.integer("shared_bytes");
  return call;
}

// Without tensors: the index in kTiles of the tile that tensor cores would take goes to the output "tile", and what a
// launch is then to "launch" (counter.h).
static const Operator kChoice("pointwise_conv_tile", [](Arguments& arguments, Launcher&) {
  cuda::PointwiseConvCall call = shape_of(arguments);
  alignas(16) static const float gate = 0.0f;
  call.gate = arguments.integer("gated") ? &gate : nullptr;
  const PointwiseTile tile = cuda::choose_pointwise_tile(call);
  Counter counter;
  cuda::launch_pointwise_conv<cuda::half>(tile, call, counter);
  *static_cast<int*>(arguments.tensors.at("tile").data) = static_cast<int>(tile);
  counter.write(arguments.tensors.at("launch").data);
});

// The same of a float32 call.
static const Operator kSingle("pointwise_conv_single", [](Arguments& arguments, Launcher&) {
  Counter counter;
  cuda::launch_pointwise_conv<float>(shape_of(arguments), counter);
  counter.write(arguments.tensors.at("launch").data);
});

// "tile" is a name or "auto".
static const Operator kBound("pointwise_conv", [](Arguments& arguments, Launcher& launcher) {
  cuda::PointwiseConvCall call = shape_of(arguments);
  call.activation = parse_activation(arguments.text("activation"));
  call.x = arguments.tensor<const void>("x");
  call.weight = arguments.weights<void>("weight");
  call.bias = arguments.optional_weights<float>("bias");
  call.gate = arguments.optional_tensor<const float>("gate");
  call.residual = arguments.optional_tensor<const void>("residual");
  call.y = arguments.tensor<void>("y");
  const std::string& tile = arguments.text("tile");
  cuda::with_storage(arguments.dtype("dtype"), [&]<class T>() {
    if (tile == "auto")
      cuda::launch_pointwise_conv<T>(call, launcher);
    else
      cuda::launch_pointwise_conv<T>(parse_tile(tile), call, launcher);
  });
});

}  // namespace effnet_fast::emulation
