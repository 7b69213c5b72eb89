// The call of expand_depthwise from named arguments, for the modules that launch it.
#pragma once

#include "../cuda/expand_depthwise_launch.h"
#include "geometry.h"
#include "operators.h"

namespace effnet_fast::emulation {

inline cuda::ExpandDepthwiseShape expand_depthwise_shape(Arguments& arguments) {
  cuda::ExpandDepthwiseShape shape;
  shape.geometry = geometry_of(arguments, "m");
  shape.in_channels = arguments.integer("c");
  shape.sums = arguments.integer("pool");
  shape.multiprocessors = arguments.integer("multiprocessors");
  shape.multiprocessor_shared_bytes = arguments.integer("shared_bytes");
  return shape;
}

inline cuda::ExpandDepthwiseCall expand_depthwise_call(Arguments& arguments) {
  cuda::ExpandDepthwiseCall call{};
  call.shape = expand_depthwise_shape(arguments);
  call.expand_activation = parse_activation(arguments.text("expand_activation"));
  call.activation = parse_activation(arguments.text("activation"));
  call.x = arguments.tensor<const void>("x");
  call.expand = arguments.optional_weights<uint32_t>("expand");
  call.taps = arguments.optional_weights<uint32_t>("taps");
  call.weight = arguments.weights<void>("weight");
  call.bias = arguments.weights<float>("bias");
  call.y = arguments.tensor<void>("y");
  call.sums = arguments.optional_tensor<float>("sums");
  return call;
}

// Of a call of 16-bit maps, or, with a variant, the tiles asked for: `bands` bands by `columns` columns.
inline cuda::ExpandDepthwisePlan expand_depthwise_plan(Arguments& arguments, const cuda::ExpandDepthwiseCall& call) {
  const int64_t variant = arguments.integer("variant");
  if (variant < 0) return cuda::plan_expand_depthwise(call, /*sixteen_bits=*/true);
  return cuda::expand_depthwise_plan(call.shape, static_cast<int>(variant), arguments.integer("bands"),
                                     arguments.integer("columns"));
}

// "stmatrix": whether the GPU has it. A call that the fused kernel does not take is an error here.
template <bool kTensorTaps>
void launch_fused_expand_depthwise(Arguments& arguments, Launcher& launcher) {
  const cuda::ExpandDepthwiseCall call = expand_depthwise_call(arguments);
  const cuda::ExpandDepthwisePlan plan = expand_depthwise_plan(arguments, call);
  if (plan.variant < 0) throw std::invalid_argument("the fused kernel does not take this call");
  g_stmatrix = arguments.integer("stmatrix") != 0;
  if (arguments.dtype("dtype") == DType::kFloat16)
    cuda::launch_expand_depthwise<cuda::half, kTensorTaps>(call, plan, launcher);
  else
    cuda::launch_expand_depthwise<cuda::bfloat16, kTensorTaps>(call, plan, launcher);
}

}  // namespace effnet_fast::emulation
