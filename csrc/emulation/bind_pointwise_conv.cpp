#include "../cuda/pointwise_conv_launch.h"
#include "operators.h"

namespace effnet_fast::emulation {

using cuda::PointwiseTile;

static const char* const kTiles[] = {"fma",           "resident64x128", "resident128x64",
                                     "staged128x128", "staged128x64",   "split64x32"};  // as in PointwiseTile

static PointwiseTile parse_tile(const std::string& name) {
  for (int i = 0; i < 6; i++) {
    if (name == kTiles[i]) return static_cast<PointwiseTile>(i);
  }
  throw std::invalid_argument("no tile is called '" + name + "'");
}

// Without tensors: the index in kTiles of the tile that tensor cores would take goes to the output "tile".
static const Operator kChoice("pointwise_conv_tile", [](Arguments& arguments, Launcher&) {
  cuda::PointwiseConvCall call{};
  static const float gate = 0.0f;
  call.gate = arguments.integer("gated") ? &gate : nullptr;
  call.images = arguments.integer("n");
  call.pixels = arguments.integer("pixels");
  call.channels = arguments.integer("c");
  call.out_channels = arguments.integer("o");
  call.multiprocessors = arguments.integer("multiprocessors");
  call.multiprocessor_shared_bytes = arguments.integer("shared_bytes");
  *static_cast<int*>(arguments.tensors.at("tile").data) = static_cast<int>(cuda::choose_pointwise_tile(call));
});

// "tile" is a name or "auto".
static const Operator kBound("pointwise_conv", [](Arguments& arguments, Launcher& launcher) {
  cuda::PointwiseConvCall call;
  call.images = arguments.integer("n");
  call.pixels = arguments.integer("pixels");
  call.channels = arguments.integer("c");
  call.out_channels = arguments.integer("o");
  call.multiprocessors = arguments.integer("multiprocessors");
  call.multiprocessor_shared_bytes = arguments.integer("shared_bytes");
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
