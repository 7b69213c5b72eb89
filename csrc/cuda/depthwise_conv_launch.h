// depthwise_conv and depthwise_conv_pool: from the shape of a call to its launch. Torch-free.
#pragma once

#include <algorithm>

#include "../common/geometry.h"
#include "depthwise_conv.cuh"
#include "depthwise_conv_general.cuh"
#include "launch.h"

namespace effnet_fast::cuda {

struct DepthwiseConvCall {
  ConvGeometry geometry;
  int64_t multiprocessors;
  Activation activation;
  const void* x;
  const void* weight;  // halved, as the bias, where SiLU follows and storage has 16 bits
  const float* bias;
  void* y;
  float* sums;  // null: not asked for
  // Sums of the blocks of an image, depthwise_conv_tiles() of them, instead of the contract's tiles of 16 x 16: nobody
  // sees them, and small maps can be divided further.
  bool own_tiles = false;
};

// Four blocks share the 228 KiB of an H200's multiprocessor.
inline constexpr int kDepthwiseSharedBytes = 56 << 10;

// Padding as wide as the kernel makes windows without a row of the image, which the fast kernel does not expect.
template <class T>
bool depthwise_conv_is_fast(const DepthwiseConvCall& call) {
  const ConvGeometry& g = call.geometry;
  const bool made = (g.kernel == 3 || g.kernel == 5 || g.kernel == 7) && (g.stride == 1 || g.stride == 2);
  const int64_t row = std::max(g.w + g.left + g.right, g.out_w()) * g.c;
  return made && g.c % 8 == 0 && g.top < g.kernel && g.bottom < g.kernel && row < int64_t{1} << 27 &&
         g.out_h() < 1 << 20 && is_aligned(call.x) && is_aligned(call.weight) && is_aligned(call.bias) &&
         is_aligned(call.y);
}

// How the fast kernel divides a call into blocks.
struct DepthwiseConvBlocks {
  int64_t channels, groups, images;  // of a block
  int64_t segments;                  // of an image, at most
};

// As many channels as fit a pixel of the ring, in whole sectors of 32 bytes, but fewer where that leaves fewer threads
// idle, in the last warp or behind the last channel. Every layer of B0 to B7 is divided evenly: by 64, 48 or 32, or in
// one block of 56, 48, 40, 32 or 24.
template <class Traits>
int64_t depthwise_block_channels(int64_t channels, int64_t groups) {
  constexpr int64_t kMost = Traits::kMaxBlockChannels, kSector = 32 / sizeof(typename Traits::Storage);
  if (channels <= kMost) return channels;
  const auto threads = [&](int64_t b) { return divide_up(channels, b) * round_up(b / Traits::kChannels * groups, 32); };
  const int64_t step = channels % kSector == 0 ? kSector : 8;
  int64_t best = kMost;
  for (int64_t b = kMost; 2 * b >= kMost; b -= step) {
    if (threads(b) < threads(best)) best = b;
  }
  return best;
}

template <class Traits>
DepthwiseConvBlocks depthwise_conv_blocks(const DepthwiseConvCall& call) {
  const ConvGeometry& g = call.geometry;
  const auto strips = [&](int64_t groups) { return divide_up(g.out_w(), groups * Traits::kColumns); };
  const auto staged = [&](int64_t groups) { return strips(groups) * Traits::staged_columns(static_cast<int>(groups)); };
  const auto threads = [&](int64_t channels, int64_t groups) { return channels / Traits::kChannels * groups; };

  // The groups that stage the fewest columns in all, halos and the idle end of the last strip included. A strip is no
  // narrower than a tile of the sums, unless it is the only one, so that each has a tile to write.
  const int64_t whole = divide_up(g.out_w(), Traits::kColumns);
  const int64_t fewest = std::min<int64_t>(whole, kPoolTile / Traits::kColumns);
  int64_t groups = fewest;
  for (int64_t more = fewest; more <= std::min<int64_t>(whole, Traits::kMaxGroups); more++) {
    if (Traits::shared_bytes(static_cast<int>(more)) <= kDepthwiseSharedBytes && staged(more) < staged(groups)) {
      groups = more;
    }
  }

  int64_t channels = depthwise_block_channels<Traits>(g.c, groups);
  int64_t segments = 1;
  const auto blocks = [&] { return g.n * divide_up(g.c, channels) * strips(groups) * segments; };
  // A small batch: first shorter segments, then narrower strips, then fewer channels, until every multiprocessor has
  // two blocks.
  const int64_t wanted = 2 * call.multiprocessors;
  const bool contract = call.sums && !call.own_tiles;
  if (blocks() < wanted) {
    const int64_t most = contract ? g.pool_rows() : divide_up(g.out_h(), 4);
    segments = std::min(most, divide_up(wanted, std::max<int64_t>(blocks(), 1)));
  }
  if (blocks() < wanted) groups = fewest;
  while (blocks() < wanted && channels % 16 == 0 && threads(channels / 2, groups) >= 32) channels /= 2;
  // As long as multiprocessors have no block at all: half a warp, but whole sectors of a pixel, then half as many rows.
  constexpr int64_t kSector = 32 / sizeof(typename Traits::Storage);
  for (int64_t fewer = round_up(channels, kSector) - kSector; fewer >= kSector && blocks() < call.multiprocessors;
       fewer -= kSector) {
    if (threads(fewer, groups) >= 16 && divide_up(g.c, fewer) > divide_up(g.c, channels)) channels = fewer;
  }
  // No more than 16 sums, which squeeze-excite of a single image adds up without a launch of its own.
  if (blocks() < call.multiprocessors && !contract) {
    const int64_t apart = std::max<int64_t>(blocks() / segments, 1);
    const int64_t most = std::min(divide_up(g.out_h(), 2), 16 / strips(groups));
    segments = std::max(segments, std::min(most, divide_up(call.multiprocessors, apart)));
  }

  // Many small maps: a block that takes several images reads its weights once, as long as 16 blocks a multiprocessor
  // are left.
  const int64_t spare = blocks() / (16 * call.multiprocessors);
  int64_t images = segments > 1 ? 1 : std::clamp<int64_t>(spare, 1, std::max<int64_t>(56 / g.out_h(), 1));
  images = std::max(images, divide_up(g.n, 65535));  // a grid's z
  return {channels, groups, images, divide_up(g.out_h(), divide_up(g.out_h(), segments))};
}

template <class Traits>
int64_t depthwise_conv_strips(const DepthwiseConvCall& call, const DepthwiseConvBlocks& blocks) {
  return divide_up(call.geometry.out_w(), blocks.groups * Traits::kColumns);
}

template <class Traits>
int64_t depthwise_conv_threads(const DepthwiseConvBlocks& blocks) {
  return round_up(blocks.channels / Traits::kChannels * blocks.groups, 32);
}

template <class Traits, class Launcher>
void launch_fast_depthwise_conv(const DepthwiseConvCall& call, const SqueezeExciteTail& tail, Launcher& launcher) {
  using T = typename Traits::Storage;
  const ConvGeometry& g = call.geometry;
  const auto narrow = [](int64_t value) { return static_cast<int>(value); };
  const DepthwiseConvBlocks blocks = depthwise_conv_blocks<Traits>(call);
  const int64_t threads = depthwise_conv_threads<Traits>(blocks), strips = depthwise_conv_strips<Traits>(call, blocks);
  const int64_t segment_rows = divide_up(g.out_h(), blocks.segments);
  const int64_t end_row = (g.out_h() - 1) * g.stride - g.top + g.kernel;
  const int64_t stage_rows = round_up(end_row + g.top % g.stride, Traits::kStageRows) - g.top % g.stride;

  DepthwiseConvArgs<T> args;
  args.x = static_cast<const T*>(call.x);
  args.weight = static_cast<const T*>(call.weight);
  args.bias = call.bias;
  args.y = static_cast<T*>(call.y);
  args.sums = call.sums;
  args.images = narrow(g.n);
  args.channels = narrow(g.c);
  args.height = narrow(g.h);
  args.width = narrow(g.w);
  args.out_height = narrow(g.out_h());
  args.out_width = narrow(g.out_w());
  args.top = narrow(g.top);
  args.left = narrow(g.left);
  args.tile_rows = narrow(call.own_tiles ? blocks.segments : g.pool_rows());
  args.tile_columns = narrow(call.own_tiles ? strips : g.pool_cols());
  args.activation = call.activation;
  args.block_channels = narrow(blocks.channels);
  args.groups = narrow(blocks.groups);
  args.segment_rows = narrow(segment_rows);
  args.block_images = narrow(blocks.images);
  args.strips = narrow(strips);
  args.rows = narrow((segment_rows - 1) * g.stride + g.kernel);
  args.end_row = narrow(end_row);
  args.next_image = (g.h - stage_rows - g.top % g.stride) * g.w * g.c;
  args.staged = Traits::staged_columns(args.groups);
  args.copy_columns = narrow(threads / (blocks.channels / kVector<T>));
  args.copy_step = narrow(args.copy_columns * g.c);
  args.in_row = narrow(g.w * g.c);
  args.out_row = narrow(g.out_w() * g.c);
  args.tail = tail;

  int64_t shared = Traits::shared_bytes(args.groups);
  if (tail.tickets) shared += SqueezeExciteTail::shared_bytes(g.c, tail.squeeze);
  const Extent grid{grid_extent(divide_up(g.c, blocks.channels)), grid_extent(strips * blocks.segments),
                    grid_extent(divide_up(g.n, blocks.images))};
  launcher.template run<&depthwise_conv_kernel<Traits>>(
      LaunchShape{grid, static_cast<unsigned>(threads), static_cast<unsigned>(shared), true}, args);
}

template <class Traits, class Launcher>
void launch_general_depthwise_conv(const DepthwiseConvCall& call, Launcher& launcher) {
  using T = typename Traits::Storage;
  const ConvGeometry& g = call.geometry;
  const auto narrow = [](int64_t value) { return static_cast<int>(value); };
  const DepthwiseConvGeneralArgs<T> args{static_cast<const T*>(call.x),
                                         static_cast<const T*>(call.weight),
                                         call.bias,
                                         static_cast<T*>(call.y),
                                         call.sums,
                                         narrow(g.c),
                                         narrow(g.h),
                                         narrow(g.w),
                                         narrow(g.out_h()),
                                         narrow(g.out_w()),
                                         narrow(g.kernel),
                                         narrow(g.stride),
                                         narrow(g.top),
                                         narrow(g.left),
                                         narrow(g.pool_rows()),
                                         narrow(g.pool_cols()),
                                         call.activation};
  launcher.template run<&depthwise_conv_general_kernel<Traits>>(
      LaunchShape{{grid_extent(g.n * g.pool_tiles()), grid_extent(divide_up(g.c, Traits::kChannels))},
                  Traits::kThreads,
                  Traits::kSharedBytes,
                  true},
      args);
}

// Calls function.template operator()<kKernel, kStride>() for a call that is fast.
template <class Function>
void with_depthwise_shape(const ConvGeometry& g, Function&& function) {
  const auto with_stride = [&]<int kKernel>() {
    if (g.stride == 1)
      function.template operator()<kKernel, 1>();
    else
      function.template operator()<kKernel, 2>();
  };
  if (g.kernel == 3)
    with_stride.template operator()<3>();
  else if (g.kernel == 5)
    with_stride.template operator()<5>();
  else
    with_stride.template operator()<7>();
}

// What a call that is fast becomes: of a block, and of an image.
struct DepthwiseConvDivision {
  int64_t threads, tiles, blocks;
};

template <class T>
DepthwiseConvDivision depthwise_conv_division(const DepthwiseConvCall& call) {
  DepthwiseConvDivision division{};
  with_depthwise_shape(call.geometry, [&]<int kKernel, int kStride>() {
    using Traits = DepthwiseConvTraits<T, kKernel, kStride, false>;  // SiLU changes nothing here
    const DepthwiseConvBlocks blocks = depthwise_conv_blocks<Traits>(call);
    const int64_t tiles = depthwise_conv_strips<Traits>(call, blocks) * blocks.segments;
    division = {depthwise_conv_threads<Traits>(blocks), call.own_tiles ? tiles : call.geometry.pool_tiles(),
                tiles * divide_up(call.geometry.c, blocks.channels)};
  });
  return division;
}

// Sums of an image, for each channel.
template <class T>
int64_t depthwise_conv_tiles(const DepthwiseConvCall& call) {
  return depthwise_conv_is_fast<T>(call) ? depthwise_conv_division<T>(call).tiles : call.geometry.pool_tiles();
}

// With a tail, which only the fast kernel has, the last block of an image computes its gates from the sums.
template <class T, class Launcher>
void launch_depthwise_conv(const DepthwiseConvCall& call, Launcher& launcher, const SqueezeExciteTail& tail = {}) {
  const auto launch = [&]<bool kSilu>() {
    if (depthwise_conv_is_fast<T>(call)) {
      with_depthwise_shape(call.geometry, [&]<int kKernel, int kStride>() {
        launch_fast_depthwise_conv<DepthwiseConvTraits<T, kKernel, kStride, kSilu>>(call, tail, launcher);
      });
    } else {
      launch_general_depthwise_conv<DepthwiseConvGeneralTraits<T, kSilu>>(call, launcher);
    }
  };
  if constexpr (sizeof(T) == 2) {
    if (call.activation == Activation::kSilu) return launch.template operator()<true>();
  }
  launch.template operator()<false>();
}

}  // namespace effnet_fast::cuda
