// stem_block_sums and stem_block: from the shape of a call to its launch. Torch-free.
#pragma once

#include "depthwise_conv_launch.h"
#include "pointwise_conv_launch.h"
#include "stem_block.cuh"
#include "stem_conv_launch.h"

namespace effnet_fast::cuda {

struct StemBlockCall {
  StemConvCall stem;  // out_channels: of the block; y: null
  int64_t filter;     // side of the depthwise kernel, which keeps the map's size
  int64_t multiprocessor_shared_bytes;
  int64_t out_channels;         // 0: stem_block_sums
  const void* w_filter;         // [filter * filter, channels], halved where kHalved
  const float* b_filter;        // [channels]
  const void* w_project;        // [out_channels, channels]
  const float* b_project;       // [out_channels]
  const float* gate;            // [n, channels] or null
  void* y;                      // [n, out_h, out_w, out_channels], or null
  float* sums;                  // [n, tiles, channels], or null
  void *stem_map, *filter_map;  // [n, out_h, out_w, channels] of any content where the call is not fused, else null

  // Of the depthwise convolution.
  ConvGeometry filter_geometry() const {
    const ConvGeometry& g = stem.geometry;
    const int64_t half = filter / 2;
    return {g.n, stem.out_channels, g.out_h(), g.out_w(), filter, 1, half, half, half, half};
  }
};

// Output channels of the widest kernel, in fragments of 8: B7 has 32, and 48 take 255 registers a thread.
inline constexpr int64_t kStemBlockFragments = 6;

// Whether one launch makes it: what EfficientNets begin with, in 16 bits. Beyond 72 channels (phi = 8) the second half
// of a block's shared memory would be weights.
template <class T>
bool stem_block_is_fused(const StemBlockCall& call) {
  const ConvGeometry& g = call.stem.geometry;
  const int64_t channels = call.stem.out_channels;
  return sizeof(T) == 2 && g.kernel == 3 && g.stride == 2 && g.c == 3 && call.filter == 3 && channels % 8 == 0 &&
         channels <= 72 && call.out_channels % 8 == 0 && call.out_channels <= 8 * kStemBlockFragments &&
         is_aligned(call.stem.bias) && is_aligned(call.b_filter) && is_aligned(call.w_project) &&
         is_aligned(call.b_project) && is_aligned(call.gate) && is_aligned(call.y) && is_aligned(call.sums);
}

template <class Traits, class Launcher>
void launch_stem_block_kernel(const StemBlockCall& call, Launcher& launcher) {
  using T = typename Traits::T;
  const StemConvArgs<T> stem = stem_conv_args<T>(call.stem);
  const ConvGeometry g = call.filter_geometry();
  const int64_t groups = g.c / Traits::kGroup;
  StemBlockArgs<T> args;
  args.image = stem.image;
  args.w_stem = stem.weight;
  args.b_stem = stem.bias;
  args.w_filter = static_cast<const T*>(call.w_filter);
  args.b_filter = call.b_filter;
  args.w_project = static_cast<const T*>(call.w_project);
  args.b_project = call.b_project;
  args.gate = call.gate;
  args.y = static_cast<T*>(call.y);
  args.sums = call.sums;
  args.channels = static_cast<int>(g.c);
  args.out_channels = static_cast<int>(call.out_channels);
  args.out_height = stem.out_height;
  args.out_width = stem.out_width;
  args.top = stem.top;
  args.left = stem.left;
  args.tiles = static_cast<int>(g.pool_tiles());
  args.tiles_x = static_cast<int>(g.pool_cols());
  args.chunk_groups = static_cast<int>(divide_up(groups, divide_up(groups, Traits::kChunkGroups)));
  args.activation = stem.activation;
  const LaunchShape shape{{grid_extent(g.n * args.tiles)},
                          Traits::kThreads,
                          static_cast<unsigned>(Traits::shared_bytes(args.channels)),
                          true};
  launcher.template run<&stem_block_kernel<Traits>>(shape, args);
}

// Of a call that is fused; T has 16 bits.
template <class T, class Launcher>
void launch_stem_block(const StemBlockCall& call, Launcher& launcher) {
  const auto launch = [&]<bool kSilu>() {
    switch (divide_up(call.out_channels, 8)) {
      case 0: return launch_stem_block_kernel<StemBlockTraits<T, kSilu, 0>>(call, launcher);
      case 1:
      case 2: return launch_stem_block_kernel<StemBlockTraits<T, kSilu, 2>>(call, launcher);
      case 3: return launch_stem_block_kernel<StemBlockTraits<T, kSilu, 3>>(call, launcher);
      case 4: return launch_stem_block_kernel<StemBlockTraits<T, kSilu, 4>>(call, launcher);
      default: return launch_stem_block_kernel<StemBlockTraits<T, kSilu, kStemBlockFragments>>(call, launcher);
    }
  };
  if (call.stem.activation == Activation::kSilu)
    launch.template operator()<true>();
  else
    launch.template operator()<false>();
}

// Any other call: its operators one after the other, through maps in memory.
template <class T, class Launcher>
void launch_stem_block_parts(const StemBlockCall& call, Launcher& launcher) {
  StemConvCall stem = call.stem;
  stem.y = call.stem_map;
  launch_stem_conv<T>(stem, launcher);

  DepthwiseConvCall filter{};
  filter.geometry = call.filter_geometry();
  filter.multiprocessors = stem.multiprocessors;
  filter.activation = stem.activation;
  filter.x = call.stem_map;
  filter.weight = call.w_filter;
  filter.bias = call.b_filter;
  filter.y = call.filter_map;
  filter.sums = call.sums;
  launch_depthwise_conv<T>(filter, launcher, SqueezeExciteTail{});
  if (call.out_channels == 0) return;

  PointwiseConvCall project{};
  const ConvGeometry& g = filter.geometry;
  project.images = g.n;
  project.pixels = g.h * g.w;
  project.channels = g.c;
  project.out_channels = call.out_channels;
  project.multiprocessors = stem.multiprocessors;
  project.multiprocessor_shared_bytes = call.multiprocessor_shared_bytes;
  project.activation = Activation::kIdentity;
  project.x = call.filter_map;
  project.weight = call.w_project;
  project.bias = call.b_project;
  project.gate = call.gate;
  project.y = call.y;
  launch_pointwise_conv<T>(project, launcher);
}

}  // namespace effnet_fast::cuda
