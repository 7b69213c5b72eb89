// expand_depthwise for calls that its kernel does not take (float32, 7 x 7, channels that 8 does not divide, ...): the
// expansion and the depthwise convolution, one behind the other. Torch-free.
#pragma once

#include "depthwise_conv_launch.h"
#include "expand_depthwise_launch.h"
#include "pointwise_conv_launch.h"

namespace effnet_fast::cuda {

struct ExpandWeights {
  const void* weight;  // [channels, in_channels]
  const float* bias;   // [channels]
};

// Bytes of the expanded map, which is not to be kept.
inline int64_t expanded_bytes(const ExpandDepthwiseCall& call, DType dtype) {
  const ConvGeometry& g = call.shape.geometry;
  return g.n * g.h * g.w * g.c * size_of(dtype);
}

template <class T, class Launcher>
void launch_composed_expand_depthwise(const ExpandDepthwiseCall& call, const ExpandWeights& weights, void* expanded,
                                      Launcher& launcher) {
  const ConvGeometry& g = call.shape.geometry;
  PointwiseConvCall expand{};
  expand.images = g.n;
  expand.pixels = g.h * g.w;
  expand.channels = call.shape.in_channels;
  expand.out_channels = g.c;
  expand.multiprocessors = call.shape.multiprocessors;
  expand.multiprocessor_shared_bytes = call.shape.multiprocessor_shared_bytes;
  expand.activation = call.expand_activation;
  expand.x = call.x;
  expand.weight = weights.weight;
  expand.bias = weights.bias;
  expand.y = expanded;
  launch_pointwise_conv<T>(expand, launcher);
  DepthwiseConvCall filter{};
  filter.geometry = g;
  filter.multiprocessors = call.shape.multiprocessors;
  filter.activation = call.activation;
  filter.x = expanded;
  filter.weight = call.weight;
  filter.bias = call.bias;
  filter.y = call.y;
  filter.sums = call.sums;
  launch_depthwise_conv<T>(filter, launcher);
}

}  // namespace effnet_fast::cuda
