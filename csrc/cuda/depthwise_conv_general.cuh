// depthwise_conv for what the fast kernel is not made for: any kernel size and stride, any number of channels, any
// padding. A block computes one 16 x 16 tile of 32 channels, a lane each, and its sums.
#pragma once

#include "activation.cuh"

namespace effnet_fast::cuda {

// kSilu_: SiLU on halved weights, for 16-bit storage; otherwise Args::activation.
template <class T, bool kSilu_>
struct DepthwiseConvGeneralTraits {
  using Storage = T;
  static constexpr bool kSilu = kSilu_;
  static constexpr int kTile = 16;
  static constexpr int kChannels = 32;
  static constexpr int kWarps = 8;
  static constexpr int kThreads = 32 * kWarps;
  // Of a multiprocessor: 40 registers a thread. Left to choose, nvcc takes 32 for sm_100, and spills.
  static constexpr int kBlocks = 6;
  static constexpr int kSharedBytes = kWarps * kChannels * static_cast<int>(sizeof(float));
  static_assert(!kSilu || sizeof(T) == 2);
};

template <class T>
struct DepthwiseConvGeneralArgs {
  Global<const T> x;       // [images, height, width, channels]
  Global<const T> weight;  // [kernel * kernel, channels]
  Global<const float> bias;
  Global<T> y;         // [images, out_height, out_width, channels]
  Global<float> sums;  // [images, tile_rows, tile_columns, channels] or null
  int channels, height, width, out_height, out_width, kernel, stride, top, left, tile_rows, tile_columns;
  Activation activation;
};

template <class Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kBlocks)
    depthwise_conv_general_kernel(const __grid_constant__ DepthwiseConvGeneralArgs<typename Traits::Storage> args) {
  using T = typename Traits::Storage;
  const int lane = ptx::lane(), warp = threadIdx.x / 32;
  const int channel = blockIdx.y * Traits::kChannels + lane;
  const bool active = channel < args.channels;
  const int tile = blockIdx.x, tiles = args.tile_rows * args.tile_columns;  // of an image
  const int64_t image = tile / tiles;
  const int in_image = tile % tiles;
  const int first_row = in_image / args.tile_columns * Traits::kTile;
  const int first_column = in_image % args.tile_columns * Traits::kTile;
  const float bias = active ? load_constant<float>(args.bias + channel) : 0.0f;
  ptx::grid_dependency_launch();
  ptx::grid_dependency_wait();

  float total = 0.0f;
  for (int i = warp; active && i < Traits::kTile * Traits::kTile; i += Traits::kWarps) {
    const int oy = first_row + i / Traits::kTile, ox = first_column + i % Traits::kTile;
    if (oy >= args.out_height || ox >= args.out_width) continue;
    float sum = bias;
    for (int ky = 0; ky < args.kernel; ky++) {
      const int iy = oy * args.stride - args.top + ky;
      if (iy < 0 || iy >= args.height) continue;
      const auto row = args.x + ((image * args.height + iy) * args.width * args.channels + channel);
      for (int kx = 0; kx < args.kernel; kx++) {
        const int ix = ox * args.stride - args.left + kx;
        if (ix < 0 || ix >= args.width) continue;
        const auto weight = load_constant<T>(args.weight + ((ky * args.kernel + kx) * args.channels + channel));
        const auto value = load<T>(row + static_cast<int64_t>(ix) * args.channels);
        sum = ptx::fma(to_float(value), to_float(weight), sum);
      }
    }
    if constexpr (Traits::kSilu)
      sum = activate<Activation::kSilu, T>(sum);
    else
      sum = activate(args.activation, sum);
    store(args.y + (((image * args.out_height + oy) * args.out_width + ox) * args.channels + channel),
          to_storage<T>(sum));
    total += sum;
  }

  if (!args.sums) return;
  const auto totals = shared_memory<float>();  // [kWarps][kChannels]
  store(totals + threadIdx.x, total);
  ptx::sync_threads();
  if (warp > 0 || !active) return;
  total = 0.0f;
#pragma unroll
  for (int w = 0; w < Traits::kWarps; w++) total += load<float>(totals + (w * Traits::kChannels + lane));
  store(args.sums + (static_cast<int64_t>(tile) * args.channels + channel), total);
}

}  // namespace effnet_fast::cuda
