// head_pool: from the shape of a call to its launch. Torch-free.
#pragma once

#include "head_pool.cuh"
#include "matrix_launch.h"

namespace effnet_fast::cuda {

struct HeadPoolCall {
  int64_t images, pixels;  // of an image
  int64_t channels, out_channels;
  int64_t multiprocessors, multiprocessor_shared_bytes;
  Activation activation;
  const void* x;       // [images, pixels, channels]
  const void* weight;  // [out_channels, channels], halved where kHalved
  const float* bias;   // [out_channels] or null
  float* y;            // [images, out_channels]
};

template <class T>
HeadPoolArgs<T> head_pool_args(const HeadPoolCall& call, int64_t columns_of_tile) {
  HeadPoolArgs<T> args{};
  args.matrix = {static_cast<const T*>(call.x),   static_cast<const T*>(call.weight), call.bias, nullptr, nullptr,
                 static_cast<int>(call.channels), static_cast<int>(call.out_channels)};
  args.y = call.y;
  args.images = static_cast<int>(call.images);
  args.pixels = static_cast<int>(call.pixels);
  args.column_blocks = static_cast<int>(divide_up(call.out_channels, columns_of_tile));
  args.activation = call.activation;
  return args;
}

// With 16 bits.
inline bool can_use_tensor_cores(const HeadPoolCall& call) {
  return call.channels % 8 == 0 && call.out_channels % 8 == 0 && is_aligned(call.x) && is_aligned(call.weight) &&
         is_aligned(call.bias);
}

// In the order of choose_staged_tile().
enum class HeadPoolTile { k128x256, k128x128, k128x64, kSplit64x32, kSplit64x16 };

// Every image has as many tiles as it has groups of rows, whichever the tile, so one row stands for them.
inline HeadPoolTile choose_head_pool_tile(const HeadPoolCall& call) {
  const MatrixShape shape{
      call.images, 1, call.out_channels, call.channels, call.multiprocessors, call.multiprocessor_shared_bytes};
  return static_cast<HeadPoolTile>(
      choose_staged_tile<Staged128x256, Staged128x128, Staged128x64, Split64x32, Split64x16>(shape));
}

template <class T, bool kSilu, class Launcher>
void launch_head_pool_tile(HeadPoolTile tile, const HeadPoolCall& call, Launcher& launcher) {
  const auto launch = [&]<class Tile>() {
    using Traits = HeadPoolTraits<T, Tile, kSilu>;
    const auto args = head_pool_args<T>(call, Tile::kColumns);
    const LaunchShape shape{{grid_extent(divide_up(call.images, Tile::kGroups) * args.column_blocks)},
                            Traits::kThreads,
                            static_cast<unsigned>(Traits::shared_bytes(call.channels)),
                            true};
    launcher.template run<&head_pool_kernel<Traits>>(shape, args);
  };
  switch (tile) {
    case HeadPoolTile::k128x256: return launch.template operator()<Staged128x256>();
    case HeadPoolTile::k128x128: return launch.template operator()<Staged128x128>();
    case HeadPoolTile::k128x64: return launch.template operator()<Staged128x64>();
    case HeadPoolTile::kSplit64x32: return launch.template operator()<Split64x32>();
    case HeadPoolTile::kSplit64x16: return launch.template operator()<Split64x16>();
  }
}

template <class T, bool kSilu, class Launcher>
void launch_head_pool_fma(const HeadPoolCall& call, Launcher& launcher) {
  const auto launch = [&]<int kVector>() {
    using Traits = FmaTraits<T, kVector, kSilu>;
    const auto args = head_pool_args<T>(call, Traits::kColumns);
    const LaunchShape shape{
        {grid_extent(call.images * args.column_blocks)}, Traits::kThreads, Traits::kSharedBytes, true};
    launcher.template run<&head_pool_fma_kernel<Traits>>(shape, args);
  };
  if constexpr (sizeof(T) == 4) {
    if (call.channels % 4 == 0 && is_aligned(call.x) && is_aligned(call.weight)) {
      return launch.template operator()<4>();
    }
  }
  launch.template operator()<1>();
}

// `tile` is for a call on tensor cores.
template <class T, class Launcher>
void launch_head_pool(HeadPoolTile tile, const HeadPoolCall& call, Launcher& launcher) {
  const auto launch = [&]<bool kSilu>() {
    if constexpr (sizeof(T) == 2) {
      if (can_use_tensor_cores(call)) return launch_head_pool_tile<T, kSilu>(tile, call, launcher);
    }
    launch_head_pool_fma<T, kSilu>(call, launcher);
  };
  if (call.activation == Activation::kSilu)
    launch.template operator()<true>();
  else
    launch.template operator()<false>();
}

template <class T, class Launcher>
void launch_head_pool(const HeadPoolCall& call, Launcher& launcher) {
  launch_head_pool<T>(choose_head_pool_tile(call), call, launcher);
}

}  // namespace effnet_fast::cuda
