// Squeeze-excite behind a depthwise convolution: the block that finishes an image last computes the image's gates,
// so that small layers need no launch of their own. Which block that is changes nothing in the order of any sum.
#pragma once

#include "activation.cuh"

namespace effnet_fast::cuda {

struct SqueezeExciteTail {
  Global<int> tickets;     // [images], zero before the launch; null: no squeeze-excite
  Global<const float> w1;  // [squeeze, channels]
  Global<const float> b1;  // [squeeze] or null
  Global<const float> w2;  // [channels, squeeze]
  Global<const float> b2;  // [channels] or null
  Global<float> gates;     // [images, channels]
  float inverse_count;     // of the pixels of an image
  int squeeze;
  Activation activation;
  Gate gate;

  // Behind the shared memory of the kernel: the mean of each channel, the squeezed channels, the ticket.
  static constexpr int64_t shared_bytes(int64_t channels, int64_t squeeze) {
    return (channels + squeeze + 1) * static_cast<int64_t>(sizeof(float));
  }
};

// For every thread of the block, after it stored its part of the image's sums, [tiles, channels].
__device__ __forceinline__ void squeeze_excite_tail(const SqueezeExciteTail& tail, Global<const float> sums, int image,
                                                    int blocks, int tiles, int channels, Shared<float> shared) {
  const auto means = shared, squeezed = shared + channels;
  const auto ticket = Shared<int>{(squeezed + tail.squeeze).address};
  ptx::thread_fence();
  ptx::sync_threads();
  if (threadIdx.x == 0) store(ticket, atomic_add(tail.tickets + image, 1));
  ptx::sync_threads();
  // By ballot, so that the compiler knows that warps stay together: else it guards the branches of the main loop.
  if (ptx::ballot(load<int>(ticket) == blocks - 1) == 0) return;
  ptx::thread_fence();

  const auto from = sums + static_cast<int64_t>(image) * tiles * channels;
  for (int c = threadIdx.x; c < channels; c += blockDim.x) {
    float mean = 0.0f;
#pragma unroll 1
    for (int tile = 0; tile < tiles; tile++) mean += load_coherent<float>(from + (tile * channels + c));
    store(means + c, mean * tail.inverse_count);
  }
  ptx::sync_threads();

  // A warp for each squeezed channel.
  for (int s = threadIdx.x / 32; s < tail.squeeze; s += blockDim.x / 32) {
    float sum = 0.0f;
#pragma unroll 1
    for (int c = ptx::lane(); c < channels; c += 32) {
      sum = ptx::fma(load_constant<float>(tail.w1 + (s * channels + c)), load<float>(means + c), sum);
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) sum += ptx::shuffle_xor(sum, distance);
    const float bias = tail.b1 ? load_constant<float>(tail.b1 + s) : 0.0f;
    if (ptx::lane() == 0) store(squeezed + s, activate(tail.activation, sum + bias));
  }
  ptx::sync_threads();

  for (int c = threadIdx.x; c < channels; c += blockDim.x) {
    float sum = tail.b2 ? load_constant<float>(tail.b2 + c) : 0.0f;
#pragma unroll 1
    for (int s = 0; s < tail.squeeze; s++) {
      sum = ptx::fma(load_constant<float>(tail.w2 + (c * tail.squeeze + s)), load<float>(squeezed + s), sum);
    }
    store(tail.gates + (static_cast<int64_t>(image) * channels + c), open_gate(tail.gate, sum));
  }
}

}  // namespace effnet_fast::cuda
