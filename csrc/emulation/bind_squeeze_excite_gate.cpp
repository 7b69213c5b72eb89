#include "../cuda/squeeze_excite_gate_launch.h"
#include "operators.h"

namespace effnet_fast::emulation {

static const Operator kBound("squeeze_excite_gate", [](Arguments& arguments, Launcher& launcher) {
  cuda::SqueezeExciteGateCall call;
  call.images = arguments.integer("n");
  call.tiles = arguments.integer("t");
  call.channels = arguments.integer("c");
  call.squeeze = arguments.integer("s");
  call.count = arguments.integer("count");
  call.multiprocessors = arguments.integer("multiprocessors");
  call.activation = parse_activation(arguments.text("activation"));
  call.gate = parse_gate(arguments.text("gate"));
  call.sums = arguments.tensor<const float>("sums");
  call.w1 = arguments.weights<float>("w1");
  call.b1 = arguments.optional_weights<float>("b1");
  call.w2 = arguments.weights<float>("w2");
  call.b2 = arguments.optional_weights<float>("b2");
  call.y = arguments.tensor<float>("y");
  call.workspace = arguments.scratch<float>(cuda::squeeze_excite_gate_workspace(call));
  cuda::launch_squeeze_excite_gate(call, launcher);
});

}  // namespace effnet_fast::emulation
