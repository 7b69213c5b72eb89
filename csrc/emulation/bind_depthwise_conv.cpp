#include "../cuda/depthwise_conv_gate_launch.h"
#include "counter.h"
#include "geometry.h"
#include "operators.h"

namespace effnet_fast::emulation {

static cuda::DepthwiseConvCall shape_of(Arguments& arguments) {
  cuda::DepthwiseConvCall call{};
  call.geometry = geometry_of(arguments);
  call.multiprocessors = arguments.integer("multiprocessors");
  return call;
}

static cuda::DepthwiseConvCall convolution(Arguments& arguments) {
  cuda::DepthwiseConvCall call = shape_of(arguments);
  call.activation = parse_activation(arguments.text("activation"));
  call.x = arguments.tensor<const void>("x");
  call.weight = arguments.weights<void>("weight");
  call.bias = arguments.weights<float>("bias");
  call.y = arguments.tensor<void>("y");
  call.sums = arguments.optional_tensor<float>("sums");
  return call;
}

// With sums among the outputs this is depthwise_conv_pool.
static const Operator kConvolution("depthwise_conv", [](Arguments& arguments, Launcher& launcher) {
  const cuda::DepthwiseConvCall call = convolution(arguments);
  cuda::with_storage(arguments.dtype("dtype"), [&]<class T>() { cuda::launch_depthwise_conv<T>(call, launcher); });
});

// Without tensors: what the launch of a 16-bit depthwise_conv_gate is goes to the output "launch" (counter.h).
static const Operator kGateLaunch("depthwise_conv_gate_launch", [](Arguments& arguments, Launcher&) {
  cuda::DepthwiseConvGateCall call{};
  call.convolution = shape_of(arguments);
  call.squeeze = arguments.integer("s");
  Counter counter;
  cuda::launch_depthwise_conv_gate<cuda::half>(call, counter);
  counter.write(arguments.tensors.at("launch").data);
});

static const Operator kGate("depthwise_conv_gate", [](Arguments& arguments, Launcher& launcher) {
  cuda::DepthwiseConvGateCall call;
  call.convolution = convolution(arguments);
  call.squeeze = arguments.integer("s");
  call.squeeze_activation = parse_activation(arguments.text("se_activation"));
  call.gate = parse_gate(arguments.text("gate"));
  call.w1 = arguments.weights<float>("w1");
  call.b1 = arguments.optional_weights<float>("b1");
  call.w2 = arguments.weights<float>("w2");
  call.b2 = arguments.optional_weights<float>("b2");
  call.gates = arguments.tensor<float>("gates");
  call.workspace = nullptr;
  call.tickets = arguments.zeros<int>(call.convolution.geometry.n);
  cuda::with_storage(arguments.dtype("dtype"), [&]<class T>() {
    call.workspace = arguments.scratch<float>(cuda::depthwise_conv_gate_workspace<T>(call));
    cuda::launch_depthwise_conv_gate<T>(call, launcher);
  });
});

}  // namespace effnet_fast::emulation
