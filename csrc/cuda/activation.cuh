// Activations and gates of the operator contract, in float32.
#pragma once

#include "../common/activation.h"
#include "storage.cuh"

namespace effnet_fast::cuda {

// In 16 bits SiLU is h + h tanh(h) with h = x / 2: one MUFU and one FFMA, where x * sigmoid(x) takes two MUFU and
// six more. The halving is exact and done in the packed weights and bias, so such kernels accumulate h.
template <Activation kActivation, class T>
inline constexpr bool kHalved = kActivation == Activation::kSilu && sizeof(T) == 2;

__device__ __forceinline__ float clamp(float x, float low, float high) {
  return ptx::min_nan(ptx::max_nan(x, low), high);
}

// The reciprocal errs by one unit in the last place; a division is eight instructions and a call besides.
__device__ __forceinline__ float sigmoid(float x) { return ptx::reciprocal_approx(1.0f + ptx::exp(-x)); }
__device__ __forceinline__ float hardsigmoid(float x) { return clamp(x + 3.0f, 0.0f, 6.0f) * (1.0f / 6.0f); }

// Of an accumulator in front of storage type T: x, or x / 2 where kHalved.
template <Activation kActivation, class T>
__device__ __forceinline__ float activate(float x) {
  if constexpr (kHalved<kActivation, T>)
    return ptx::fma(x, ptx::tanh_approx(x), x);
  else if constexpr (kActivation == Activation::kSilu)
    return x * sigmoid(x);
  else if constexpr (kActivation == Activation::kRelu)
    return ptx::max_nan(x, 0.0f);
  else if constexpr (kActivation == Activation::kRelu6)
    return clamp(x, 0.0f, 6.0f);
  else if constexpr (kActivation == Activation::kHardswish)
    return x * hardsigmoid(x);
  else
    return x;
}

// The same chosen at run time, in full precision: for squeeze-excite, where a thread activates a handful of values.
__device__ __forceinline__ float activate(Activation activation, float x) {
  switch (activation) {
    case Activation::kSilu: return activate<Activation::kSilu, float>(x);
    case Activation::kRelu: return activate<Activation::kRelu, float>(x);
    case Activation::kRelu6: return activate<Activation::kRelu6, float>(x);
    case Activation::kHardswish: return activate<Activation::kHardswish, float>(x);
    case Activation::kIdentity: break;
  }
  return x;
}

// In place. SiLU has kernels of its own; the others share one, since a choice per tile costs nothing.
template <bool kSilu, class T, int kCount>
__device__ __forceinline__ void activate_all(Activation activation, float (&values)[kCount][4]) {
  const auto apply = [&]<Activation kActivation>() {
#pragma unroll
    for (int i = 0; i < kCount; i++) {
#pragma unroll
      for (int j = 0; j < 4; j++) values[i][j] = activate<kActivation, T>(values[i][j]);
    }
  };
  if constexpr (kSilu) {
    apply.template operator()<Activation::kSilu>();
  } else {
    if (activation == Activation::kRelu) apply.template operator()<Activation::kRelu>();
    if (activation == Activation::kRelu6) apply.template operator()<Activation::kRelu6>();
    if (activation == Activation::kHardswish) apply.template operator()<Activation::kHardswish>();
  }
}

__device__ __forceinline__ float open_gate(Gate gate, float x) {
  return gate == Gate::kSigmoid ? sigmoid(x) : hardsigmoid(x);
}

}  // namespace effnet_fast::cuda
