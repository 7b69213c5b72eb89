#include "../cuda/head_pool_launch.h"
#include "counter.h"
#include "operators.h"

namespace effnet_fast::emulation {

using cuda::HeadPoolTile;

static const char* const kTiles[] = {"staged128x256", "staged128x128", "staged128x64", "split64x32",
                                     "split64x16"};  // as in HeadPoolTile

static HeadPoolTile parse_tile(const std::string& name) {
  for (size_t i = 0; i < std::size(kTiles); i++) {
    if (name == kTiles[i]) return static_cast<HeadPoolTile>(i);
  }
  throw std::invalid_argument("no tile is called '" + name + "'");
}

// Without tensors: the index in kTiles of the tile that tensor cores would take goes to the output "tile", and what a
// launch is then to "launch" (counter.h).
static const Operator kChoice("head_pool_tile", [](Arguments& arguments, Launcher&) {
  cuda::HeadPoolCall call{};
  call.images = arguments.integer("n");
  call.pixels = 1;
  call.channels = arguments.integer("c");
  call.out_channels = arguments.integer("o");
  call.multiprocessors = arguments.integer("multiprocessors");
  call.multiprocessor_shared_bytes = arguments.integer("shared_bytes");
  const HeadPoolTile tile = cuda::choose_head_pool_tile(call);
  Counter counter;
  cuda::launch_head_pool<cuda::half>(tile, call, counter);
  *static_cast<int*>(arguments.tensors.at("tile").data) = static_cast<int>(tile);
  counter.write(arguments.tensors.at("launch").data);
});

// "tile" is a name or "auto".
static const Operator kBound("head_pool", [](Arguments& arguments, Launcher& launcher) {
  cuda::HeadPoolCall call;
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
  call.y = arguments.tensor<float>("y");
  const std::string& tile = arguments.text("tile");
  cuda::with_storage(arguments.dtype("dtype"), [&]<class T>() {
    if (tile == "auto")
      cuda::launch_head_pool<T>(call, launcher);
    else
      cuda::launch_head_pool<T>(parse_tile(tile), call, launcher);
  });
});

}  // namespace effnet_fast::emulation
