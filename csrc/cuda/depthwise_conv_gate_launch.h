// depthwise_conv_gate: one launch where squeeze-excite is small, else depthwise_conv_pool and squeeze_excite_gate.
// Torch-free.
#pragma once

#include "depthwise_conv_launch.h"
#include "squeeze_excite_gate_launch.h"

namespace effnet_fast::cuda {

struct DepthwiseConvGateCall {
  DepthwiseConvCall convolution;  // without sums: they are in the workspace
  int64_t squeeze;
  Activation squeeze_activation;
  Gate gate;
  const float *w1, *b1, *w2, *b2;
  float* gates;      // [images, channels]
  int* tickets;      // [images], zero
  float* workspace;  // depthwise_conv_gate_workspace() values, of any content, 16-byte aligned
};

// One block reads both layers while the others of its image have ended: from here on that takes longer than launches.
inline constexpr int64_t kTailWeightBytes = 64 << 10;
// Its loads come one after the other, 300 cycles each from the L2 cache (assumed), where two launches take about 3 us.
// Nothing hides them unless other images are at work: at least one a multiprocessor.
inline constexpr int64_t kTailLoads = 20;

// The convolution with its sums in the workspace.
inline DepthwiseConvCall convolution_with_sums(const DepthwiseConvGateCall& call) {
  DepthwiseConvCall convolution = call.convolution;
  convolution.sums = call.workspace;
  convolution.own_tiles = true;
  return convolution;
}

template <class T>
bool depthwise_conv_gate_has_tail(const DepthwiseConvGateCall& call) {
  const DepthwiseConvCall convolution = convolution_with_sums(call);
  const int64_t channels = convolution.geometry.c;
  const bool small = 2 * channels * call.squeeze * static_cast<int64_t>(sizeof(float)) <= kTailWeightBytes;
  if (!small || !depthwise_conv_is_fast<T>(convolution)) return false;
  const DepthwiseConvDivision division = depthwise_conv_division<T>(convolution);
  const int64_t loads = divide_up(channels, division.threads) * (division.tiles + call.squeeze) +
                        divide_up(call.squeeze, division.threads / 32) * divide_up(channels, 32);
  return convolution.geometry.n >= convolution.multiprocessors || loads <= kTailLoads;
}

template <class T>
SqueezeExciteGateCall squeeze_excite_behind(const DepthwiseConvGateCall& call) {
  const ConvGeometry& g = call.convolution.geometry;
  SqueezeExciteGateCall behind;
  behind.images = g.n;
  behind.tiles = depthwise_conv_tiles<T>(convolution_with_sums(call));
  behind.channels = g.c;
  behind.squeeze = call.squeeze;
  behind.count = g.out_h() * g.out_w();
  behind.multiprocessors = call.convolution.multiprocessors;
  behind.activation = call.squeeze_activation;
  behind.gate = call.gate;
  behind.sums = call.workspace;
  behind.w1 = call.w1;
  behind.b1 = call.b1;
  behind.w2 = call.w2;
  behind.b2 = call.b2;
  behind.y = call.gates;
  behind.workspace = call.workspace + g.n * behind.tiles * g.c;
  return behind;
}

template <class T>
int64_t depthwise_conv_gate_workspace(const DepthwiseConvGateCall& call) {
  const SqueezeExciteGateCall behind = squeeze_excite_behind<T>(call);
  return behind.images * behind.tiles * behind.channels + squeeze_excite_gate_workspace(behind);
}

template <class T, class Launcher>
void launch_depthwise_conv_gate(const DepthwiseConvGateCall& call, Launcher& launcher) {
  const DepthwiseConvCall convolution = convolution_with_sums(call);
  if (!depthwise_conv_gate_has_tail<T>(call)) {
    launch_depthwise_conv<T>(convolution, launcher);
    launch_squeeze_excite_gate(squeeze_excite_behind<T>(call), launcher);
    return;
  }
  const ConvGeometry& g = convolution.geometry;
  SqueezeExciteTail tail;
  tail.tickets = call.tickets;
  tail.w1 = call.w1;
  tail.b1 = call.b1;
  tail.w2 = call.w2;
  tail.b2 = call.b2;
  tail.gates = call.gates;
  tail.inverse_count = 1.0f / static_cast<float>(g.out_h() * g.out_w());
  tail.squeeze = static_cast<int>(call.squeeze);
  tail.activation = call.squeeze_activation;
  tail.gate = call.gate;
  launch_depthwise_conv<T>(convolution, launcher, tail);
}

}  // namespace effnet_fast::cuda
