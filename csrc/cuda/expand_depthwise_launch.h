// expand_depthwise and expand_depthwise_pool: from the shape of a call to its launch. Torch-free.
#pragma once

#include <utility>

#include "expand_depthwise.cuh"
#include "expand_depthwise_tiles.h"

namespace effnet_fast::cuda {

struct ExpandDepthwiseCall {
  ExpandDepthwiseShape shape;
  Activation expand_activation, activation;
  const void* x;
  const uint32_t* expand;  // operands of mma with the bias, halved where SiLU follows: see pack_expand
  const uint32_t* taps;    // diagonals, halved likewise: see pack_taps
  const void* weight;      // the same taps, [kernel * kernel, channels]
  const float* bias;       // [channels], of the depthwise convolution, halved likewise
  void* y;
  float* sums;  // null: not asked for
};

// Both activations are SiLU, or neither is: a kernel has halved weights throughout or not at all.
inline bool same_halving(Activation expand, Activation filter) {
  return (expand == Activation::kSilu) == (filter == Activation::kSilu);
}

// Whether the weights of such a layer have the layout of the fused kernel; what else it takes depends on the call.
inline bool can_pack_expand_depthwise(bool sixteen_bits, int64_t in_channels, int64_t channels, int64_t kernel) {
  return sixteen_bits && in_channels % 8 == 0 && in_channels > 0 && in_channels <= kMostExpandInputs &&
         channels % 8 == 0 && channels > 0 && (kernel == 3 || kernel == 5);
}

// Bytes of the sections of packed weights: those of the composition, expansion first, then `expand` and `taps`, which
// are empty where the fused kernel has no layout.
struct ExpandDepthwiseSections {
  int64_t expand_weight, expand_bias, weight, bias, expand, taps;
};
inline ExpandDepthwiseSections expand_depthwise_sections(DType dtype, int64_t in_channels, int64_t channels,
                                                         int64_t kernel, bool same_halving) {
  const int64_t size = size_of(dtype), padded = round_up(channels, kExpandedUnit);
  const bool fused = same_halving && can_pack_expand_depthwise(size == 2, in_channels, channels, kernel);
  return {channels * in_channels * size,
          channels * 4,
          kernel * kernel * channels * size,
          channels * 4,
          fused ? padded * (in_channels / 16 + 1) * 32 : 0,
          fused ? padded * round_up(kernel * kernel, 4) * 4 : 0};
}

// The plan of a call that the fused kernel takes; variant -1 for one that is a composition of two others.
inline ExpandDepthwisePlan plan_expand_depthwise(const ExpandDepthwiseCall& call, bool sixteen_bits) {
  const ConvGeometry& g = call.shape.geometry;
  constexpr int64_t kMost = int64_t{1} << 30;  // elements of an image, for 32-bit offsets in it
  const bool fits = can_pack_expand_depthwise(sixteen_bits, call.shape.in_channels, g.c, g.kernel) &&
                    (g.stride == 1 || g.stride == 2) && same_halving(call.expand_activation, call.activation) &&
                    is_aligned(call.x) && is_aligned(call.expand) && is_aligned(call.taps) && is_aligned(call.weight) &&
                    is_aligned(call.bias) && is_aligned(call.y) && g.h * g.w * call.shape.in_channels < kMost &&
                    g.out_h() * g.out_w() * g.c < kMost && g.top < 1 << 16 && g.left < 1 << 16 && g.bottom < 1 << 16 &&
                    g.right < 1 << 16;
  if (!fits) return {};
  return choose_expand_depthwise(call.shape, call.activation == Activation::kSilu);
}

template <class Traits, class Launcher>
void launch_expand_depthwise_kernel(const ExpandDepthwiseCall& call, const ExpandDepthwisePlan& plan,
                                    Launcher& launcher) {
  using T = typename Traits::T;
  static constexpr ExpandDepthwiseVariant kVariant{Traits::kKernel, Traits::kStride, Traits::kChunk, Traits::kRows};
  static_assert(kVariant.warps() == Traits::kWarps && kVariant.blocks() == Traits::kBlocks);
  static_assert(16 * (Traits::kMaxSteps - 1) >= kMostExpandInputs);
  const ConvGeometry& g = call.shape.geometry;
  const auto narrow = [](int64_t value) { return static_cast<int>(value); };
  ExpandDepthwiseArgs<T> args;
  args.x = static_cast<const T*>(call.x);
  args.expand = call.expand;
  args.taps = call.taps;
  args.weight = static_cast<const T*>(call.weight);
  args.bias = call.bias;
  args.y = static_cast<T*>(call.y);
  args.sums = call.sums;
  args.in_channels = narrow(call.shape.in_channels);
  args.channels = narrow(g.c);
  args.height = narrow(g.h);
  args.width = narrow(g.w);
  args.out_height = narrow(g.out_h());
  args.out_width = narrow(g.out_w());
  args.top = narrow(g.top);
  args.left = narrow(g.left);
  args.expand_activation = call.expand_activation;
  args.activation = call.activation;
  args.tile_rows = narrow(plan.tile_rows);
  args.tile_columns = narrow(plan.tile_columns);
  args.tiles = narrow(plan.tiles_y * plan.tiles_x);
  args.tiles_x = narrow(plan.tiles_x);
  args.blocks = narrow(plan.blocks);
  args.sum_rows = narrow(g.pool_tiles());
  args.chunks = narrow(plan.chunks);
  args.block_chunks = narrow(plan.block_chunks);
  args.in_rows = narrow(plan.in_rows);
  args.pitch = narrow(plan.pitch);
  args.odd = narrow(plan.odd);
  args.positions = narrow(plan.positions);
  args.all_positions = narrow(plan.all_positions);
  args.x_pitch = narrow(plan.x_pitch);
  args.load_pixels = Traits::kThreads / (args.in_channels / 8 + 1);
  args.load_rows = args.load_pixels / args.pitch;
  args.load_columns = args.load_pixels % args.pitch;
  args.groups = narrow(plan.groups);
  args.places = narrow(plan.places());
  args.by_groups = narrow(divide_up(1 << 16, plan.groups));  // exact for fewer than 1024 places
  const Extent grid{grid_extent(g.n * plan.blocks), grid_extent(divide_up(plan.chunks, plan.block_chunks))};
  launcher.template run<&expand_depthwise_kernel<Traits>>(
      LaunchShape{grid, Traits::kThreads, static_cast<unsigned>(plan.shared_bytes), true}, args);
}

// With a plan whose variant is not -1. kTensorTaps: false for the depthwise convolution by multiply-adds, which is
// slower wherever it was counted: only tests launch it, and it is there for variants of 4 rows.
template <class T, bool kTensorTaps = true, class Launcher>
void launch_expand_depthwise(const ExpandDepthwiseCall& call, const ExpandDepthwisePlan& plan, Launcher& launcher) {
  const auto launch = [&]<int kVariant, bool kSilu>() {
    constexpr ExpandDepthwiseVariant v = kExpandDepthwiseVariants[kVariant];
    if (plan.variant != kVariant) return;
    launch_expand_depthwise_kernel<ExpandDepthwiseTraits<T, v.kernel, v.stride, v.chunk, v.rows, kSilu, kTensorTaps>>(
        call, plan, launcher);
  };
  const bool silu = call.activation == Activation::kSilu;
  const auto each = [&]<int... kVariant>(std::integer_sequence<int, kVariant...>) {
    const auto one = [&]<int kOne>() {
      constexpr ExpandDepthwiseVariant v = kExpandDepthwiseVariants[kOne];
      if constexpr (kTensorTaps || v.rows == 4) {
        if (silu) launch.template operator()<kOne, true>();
      }
      if constexpr (is_for_any_activation(v)) {
        if (!silu) launch.template operator()<kOne, false>();
      }
    };
    (one.template operator()<kVariant>(), ...);
  };
  each(std::make_integer_sequence<int, kExpandDepthwiseVariantCount>{});
}

}  // namespace effnet_fast::cuda
