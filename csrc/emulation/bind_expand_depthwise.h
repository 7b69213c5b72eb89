// The call of expand_depthwise from named arguments, for the modules that launch it.
#pragma once

#include "../cuda/expand_depthwise_launch.h"
#include "operators.h"

namespace effnet_fast::emulation {

inline cuda::ExpandDepthwiseShape expand_depthwise_shape(Arguments& arguments) {
  cuda::ExpandDepthwiseShape shape;
  ConvGeometry& g = shape.geometry;
  g.n = arguments.integer("n");
  g.c = arguments.integer("m");
  g.h = arguments.integer("h");
  g.w = arguments.integer("w");
  g.kernel = arguments.integer("kernel");
  g.stride = arguments.integer("stride");
  g.top = arguments.integer("top");
  g.left = arguments.integer("left");
  g.bottom = arguments.integer("bottom");
  g.right = arguments.integer("right");
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

// Of the call, or, with a variant, the tiles asked for: `bands` bands by `columns` columns.
inline cuda::ExpandDepthwisePlan expand_depthwise_plan(Arguments& arguments, const cuda::ExpandDepthwiseCall& call,
                                                       bool sixteen_bits) {
  const int64_t variant = arguments.integer("variant");
  if (variant < 0) return cuda::plan_expand_depthwise(call, sixteen_bits);
  return cuda::expand_depthwise_plan(call.shape, static_cast<int>(variant), arguments.integer("bands"),
                                     arguments.integer("columns"));
}

}  // namespace effnet_fast::emulation
