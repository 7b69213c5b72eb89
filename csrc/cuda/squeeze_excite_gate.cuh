// squeeze_excite_gate: y = gate(w2 z + b2), z = activation(w1 mean + b1), from the tile sums of a depthwise
// convolution. Three kernels, since a layer's outputs all need the whole layer before it:
//
//   reduce   adds up the tiles; only where there are many, else squeeze does
//   squeeze  z: a warp per squeezed channel, its lanes along the channels
//   excite   y: a thread per channel, its weights transposed through shared memory
//
// Weights are read once for several images where the batch fills the GPU anyway. Every sum has a fixed order.
#pragma once

#include "activation.cuh"

namespace effnet_fast::cuda {

// kVector_ is 4 where channels are a multiple of 4 and 16-byte aligned, else 1.
template <int kVector_>
struct ReduceTilesTraits {
  static constexpr int kVector = kVector_;
  static constexpr int kChannels = 32;  // of a block: at least one 128-byte line
  static constexpr int kThreads = 256;
  static constexpr int kColumns = kChannels / kVector;
  static constexpr int kSlices = kThreads / kColumns;  // of the tiles, added up by a thread each
  static constexpr int kSharedBytes = kSlices * kChannels * static_cast<int>(sizeof(float));
  static_assert(kVector == 1 || kVector == 4);
};

struct ReduceTilesArgs {
  Global<const float> sums;  // [images, tiles, channels]
  Global<float> totals;      // [images, channels]
  int tiles, channels;
};

template <class Traits>
__global__ void __launch_bounds__(Traits::kThreads) reduce_tiles_kernel(const __grid_constant__ ReduceTilesArgs args) {
  using Values = Pack<float, Traits::kVector>;
  const auto partial = shared_memory<float>();
  const int column = threadIdx.x % Traits::kColumns, slice = threadIdx.x / Traits::kColumns;
  const int channel = blockIdx.y * Traits::kChannels + column * Traits::kVector;
  const bool inside = channel < args.channels;
  const int64_t image = blockIdx.x;
  ptx::grid_dependency_launch();
  ptx::grid_dependency_wait();

  float total[Traits::kVector] = {};
  const Global<const float> sums = args.sums + image * args.tiles * args.channels + channel;
  for (int tile = slice; inside && tile < args.tiles; tile += Traits::kSlices) {
    float values[Traits::kVector];
    unpack(load<Values>(sums + tile * args.channels), values);
#pragma unroll
    for (int i = 0; i < Traits::kVector; i++) total[i] += values[i];
  }
  store(partial + (slice * Traits::kChannels + column * Traits::kVector), pack<float>(total));
  ptx::sync_threads();

  const int mine = blockIdx.y * Traits::kChannels + threadIdx.x;
  if (threadIdx.x < Traits::kChannels && mine < args.channels) {
    float sum = 0.0f;
#pragma unroll
    for (int s = 0; s < Traits::kSlices; s++) sum += load<float>(partial + (s * Traits::kChannels + threadIdx.x));
    store(args.totals + image * args.channels + mine, sum);
  }
}

template <int kVector_, int kImages_>
struct SqueezeTraits {
  static constexpr int kVector = kVector_;
  static constexpr int kImages = kImages_;  // of a block
  static constexpr int kWarps = 8;          // a squeezed channel each
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kMinBlocks = 4;                 // left alone, ptxas spills to reach 32 registers and eight
  static constexpr int kAhead = kImages == 1 ? 8 : 4;  // loads of weights of a lane at a time
  // The means of the block's images: 61 KB for the widest layer of B7 (3840 channels) and four images.
  static constexpr int64_t shared_bytes(int64_t channels) { return kImages * channels * sizeof(float); }
  static_assert(kVector == 1 || kVector == 4);
};

struct SqueezeArgs {
  Global<const float> sums;  // [images, tiles, channels]
  Global<const float> w1;    // [squeeze, channels]
  Global<const float> b1;    // [squeeze] or null
  Global<float> squeezed;    // [images, squeeze]
  float inverse_count;
  int images, tiles, channels, squeeze;
  Activation activation;
};

template <class Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kMinBlocks)
    squeeze_kernel(const __grid_constant__ SqueezeArgs args) {
  constexpr int kVector = Traits::kVector, kImages = Traits::kImages;
  using Values = Pack<float, kVector>;
  const auto means = shared_memory<float>();
  const int first_image = blockIdx.x * kImages;
  const int lane = ptx::lane(), s = blockIdx.y * Traits::kWarps + threadIdx.x / 32;
  // Weights do not depend on the launch before: they travel while it drains, the first 1024 of a row at least.
  Values ahead[Traits::kAhead];
  const Global<const float> row = args.w1 + static_cast<int64_t>(s < args.squeeze ? s : 0) * args.channels;
  const auto load_weights = [&](int step) {
#pragma unroll
    for (int i = 0; i < Traits::kAhead; i++) {
      const int c = step + (32 * i + lane) * kVector;
      ahead[i] = c < args.channels ? load_constant<Values>(row + c) : Values{};
    }
  };
  load_weights(0);
  const float bias = args.b1 && s < args.squeeze ? load_constant<float>(args.b1 + s) : 0.0f;
  ptx::grid_dependency_launch();
  ptx::grid_dependency_wait();

#pragma unroll
  for (int i = 0; i < kImages; i++) {
    const int64_t image = first_image + i;
    for (int c = threadIdx.x * kVector; c < args.channels; c += Traits::kThreads * kVector) {
      float mean[kVector] = {};
      for (int tile = 0; image < args.images && tile < args.tiles; tile++) {
        float values[kVector];
        unpack(load<Values>(args.sums + (image * args.tiles + tile) * args.channels + c), values);
#pragma unroll
        for (int v = 0; v < kVector; v++) mean[v] += values[v];
      }
#pragma unroll
      for (int v = 0; v < kVector; v++) mean[v] *= args.inverse_count;
      store(means + (i * args.channels + c), pack<float>(mean));
    }
  }
  ptx::sync_threads();

  if (s >= args.squeeze) return;
  float sum[kImages] = {};
  constexpr int kStep = 32 * kVector * Traits::kAhead;
  for (int step = 0; step < args.channels; step += kStep) {
#pragma unroll
    for (int a = 0; a < Traits::kAhead; a++) {
      const int c = step + (32 * a + lane) * kVector;
      if (c >= args.channels) break;
      float weights[kVector];
      unpack(ahead[a], weights);
#pragma unroll
      for (int i = 0; i < kImages; i++) {
        float mean[kVector];
        unpack(load<Values>(means + (i * args.channels + c)), mean);
#pragma unroll
        for (int v = 0; v < kVector; v++) sum[i] = ptx::fma(weights[v], mean[v], sum[i]);
      }
    }
    if (step + kStep < args.channels) load_weights(step + kStep);
  }
#pragma unroll
  for (int i = 0; i < kImages; i++) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) sum[i] += ptx::shuffle_xor(sum[i], distance);
    if (lane == i && first_image + i < args.images) {
      const float z = activate(args.activation, sum[i] + bias);
      store(args.squeezed + static_cast<int64_t>(first_image + i) * args.squeeze + s, z);
    }
  }
}

struct ExciteTraits {
  static constexpr int kChannels = 64;  // of a block
  static constexpr int kImages = 4;     // of a thread: one 16-byte load of z for four products
  static constexpr int kGroups = 2;     // of images
  static constexpr int kThreads = kChannels * kGroups;
  static constexpr int kMinBlocks = 8;
  static constexpr int kBlockImages = kImages * kGroups;
  // An odd pitch: threads of a warp read one column of the weights, and so 32 different banks.
  static constexpr int64_t pitch(int64_t squeeze) { return squeeze | 1; }
  // The squeezed values come first, since they are read 16 bytes at a time.
  static constexpr int64_t shared_bytes(int64_t squeeze) {
    return (squeeze * kBlockImages + kChannels * pitch(squeeze)) * static_cast<int64_t>(sizeof(float));
  }
};

struct ExciteArgs {
  Global<const float> squeezed;  // [images, squeeze]
  Global<const float> w2;        // [channels, squeeze]
  Global<const float> b2;        // [channels] or null
  Global<float> y;               // [images, channels]
  int images, channels, squeeze, pitch;
  Gate gate;
};

template <class Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kMinBlocks)
    excite_kernel(const __grid_constant__ ExciteArgs args) {
  constexpr int kImages = Traits::kImages, kBlockImages = Traits::kBlockImages;
  const auto squeezed = shared_memory<float>();  // [squeeze][kBlockImages]
  const auto weights = squeezed + args.squeeze * kBlockImages;
  const int first_channel = blockIdx.y * Traits::kChannels;
  const int64_t first_image = static_cast<int64_t>(blockIdx.x) * kBlockImages;
  const int lane = ptx::lane(), warp = threadIdx.x / 32;

  // The weights do not depend on the launch before: they travel while it drains.
  for (int r = warp; r < Traits::kChannels; r += Traits::kThreads / 32) {
    const bool inside = first_channel + r < args.channels;
    const Global<const float> row = args.w2 + static_cast<int64_t>(inside ? first_channel + r : 0) * args.squeeze;
    for (int s = lane; s < args.squeeze; s += 32) cp_async<4>(weights + (r * args.pitch + s), row + s, inside);
  }
  ptx::cp_async_commit();
  const int c = threadIdx.x % Traits::kChannels, group = threadIdx.x / Traits::kChannels;
  const int channel = first_channel + c;
  const float bias = args.b2 && channel < args.channels ? load_constant<float>(args.b2 + channel) : 0.0f;
  ptx::grid_dependency_launch();
  ptx::grid_dependency_wait();
  for (int i = warp; i < kBlockImages; i += Traits::kThreads / 32) {
    const bool inside = first_image + i < args.images;
    const Global<const float> from = args.squeezed + (first_image + i) * args.squeeze;
    for (int s = lane; s < args.squeeze; s += 32) {
      store(squeezed + (s * kBlockImages + i), inside ? load<float>(from + s) : 0.0f);
    }
  }
  ptx::cp_async_wait<0>();
  ptx::sync_threads();

  if (channel >= args.channels) return;
  float sum[kImages];
#pragma unroll
  for (int i = 0; i < kImages; i++) sum[i] = bias;
#pragma unroll 4
  for (int s = 0; s < args.squeeze; s++) {
    const float weight = load<float>(weights + (c * args.pitch + s));
    float z[kImages];
    unpack(load<Pack<float, kImages>>(squeezed + (s * kBlockImages + group * kImages)), z);
#pragma unroll
    for (int i = 0; i < kImages; i++) sum[i] = ptx::fma(weight, z[i], sum[i]);
  }
#pragma unroll
  for (int i = 0; i < kImages; i++) {
    const int64_t image = first_image + group * kImages + i;
    if (image < args.images) store(args.y + image * args.channels + channel, open_gate(args.gate, sum[i]));
  }
}

}  // namespace effnet_fast::cuda
