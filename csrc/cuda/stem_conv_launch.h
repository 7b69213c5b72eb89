// stem_conv: from the shape of a call to its launch. Torch-free.
#pragma once

#include "../common/geometry.h"
#include "launch.h"
#include "stem_conv.cuh"

namespace effnet_fast::cuda {

struct StemConvCall {
  ConvGeometry geometry;
  int64_t out_channels;
  int64_t multiprocessors;
  Activation activation;
  DType image_dtype;  // bytes, float32, or the storage type
  int64_t image_strides[4];
  const void* image;
  const float *mean, *std;  // [channels] or null
  const void* weight;       // [out_channels, kernel, kernel, channels], halved where kHalved
  const float* bias;        // [out_channels]
  void* y;                  // [n, out_h, out_w, out_channels]
};

template <class T>
StemConvArgs<T> stem_conv_args(const StemConvCall& call) {
  const ConvGeometry& g = call.geometry;
  const int64_t* strides = call.image_strides;
  StemConvArgs<T> args{};
  args.image = {call.image,
                call.image_dtype,
                strides[0],
                strides[1],
                strides[2],
                strides[3],
                static_cast<int>(g.c),
                static_cast<int>(g.h),
                static_cast<int>(g.w),
                call.image_dtype == DType::kUInt8 ? 1.0f / 255.0f : 1.0f,
                call.mean,
                call.std};
  args.weight = static_cast<const T*>(call.weight);
  args.bias = call.bias;
  args.y = static_cast<T*>(call.y);
  args.out_channels = static_cast<int>(call.out_channels);
  args.out_height = static_cast<int>(g.out_h());
  args.out_width = static_cast<int>(g.out_w());
  args.kernel = static_cast<int>(g.kernel);
  args.stride = static_cast<int>(g.stride);
  args.top = static_cast<int>(g.top);
  args.left = static_cast<int>(g.left);
  args.activation = call.activation;
  return args;
}

// The rows of a block: those for which all the rounds of blocks that a GPU runs at once end first.
template <class Traits>
int stem_conv_rows(const StemConvArgs<typename Traits::T>& args, int64_t images, int64_t multiprocessors) {
  int best = 0;
  int64_t best_time = 0;
  for (int most = Traits::kMaxRows; most >= Traits::kWarps; most /= 2) {
    const int64_t tiles_y = divide_up(args.out_height, most);
    // As even as whole rounds of warps allow: 112 rows are 2 x 56, not 64 and 48.
    const int64_t rows = round_up(divide_up(args.out_height, tiles_y), Traits::kWarps);
    const int64_t blocks = images * args.tiles_x * divide_up(args.out_height, rows);
    const int64_t time = divide_up(blocks, Traits::kBlocks * multiprocessors) * (Traits::kSetupRows + rows);
    if (best == 0 || time < best_time) {
      best = static_cast<int>(rows);
      best_time = time;
    }
  }
  return best;
}

// On tensor cores.
template <class Traits, class Launcher>
void launch_stem_conv_tiles(const StemConvCall& call, Launcher& launcher) {
  auto args = stem_conv_args<typename Traits::T>(call);
  args.tiles_x = static_cast<int>(divide_up(args.out_width, Traits::kColumns));
  args.rows = stem_conv_rows<Traits>(args, call.geometry.n, call.multiprocessors);
  args.tiles_y = static_cast<int>(divide_up(args.out_height, args.rows));
  const LaunchShape shape{{grid_extent(call.geometry.n * args.tiles_y * args.tiles_x)},
                          Traits::kThreads,
                          static_cast<unsigned>(Traits::shared_bytes(args.rows)),
                          true};
  launcher.template run<&stem_conv_kernel<Traits>>(shape, args);
}

template <class Traits, class Launcher>
void launch_stem_conv_general(const StemConvCall& call, Launcher& launcher) {
  auto args = stem_conv_args<typename Traits::T>(call);
  const int64_t pixels = call.geometry.out_h() * call.geometry.out_w();
  args.tiles_x = static_cast<int>(divide_up(pixels, Traits::kPixels));
  const Extent grid{grid_extent(call.geometry.n * args.tiles_x),
                    grid_extent(divide_up(call.out_channels, Traits::kChannels))};
  launcher.template run<&stem_conv_general_kernel<Traits>>(
      LaunchShape{grid, Traits::kThreads, Traits::kSharedBytes, true}, args);
}

template <class T, class Launcher>
void launch_stem_conv(const StemConvCall& call, Launcher& launcher) {
  const ConvGeometry& g = call.geometry;
  const auto launch = [&]<bool kSilu>() {
    if constexpr (sizeof(T) == 2) {
      using Traits = StemConvTraits<T, kSilu>;
      if (g.kernel == Traits::kKernel && g.stride == Traits::kStride && g.c == Traits::kInChannels &&
          call.out_channels % 8 == 0 && is_aligned(call.bias) && is_aligned(call.y)) {
        return launch_stem_conv_tiles<Traits>(call, launcher);
      }
    }
    launch_stem_conv_general<StemConvGeneralTraits<T, kSilu>>(call, launcher);
  };
  if (call.activation == Activation::kSilu)
    launch.template operator()<true>();
  else
    launch.template operator()<false>();
}

}  // namespace effnet_fast::cuda
