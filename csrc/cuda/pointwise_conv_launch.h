// pointwise_conv: from the shape of a call to its launch. Torch-free.
#pragma once

#include <numeric>

#include "matrix_launch.h"
#include "pointwise_conv.cuh"
#include "pointwise_conv_rows.cuh"

namespace effnet_fast::cuda {

struct PointwiseConvCall {
  int64_t images, pixels;  // of an image
  int64_t channels, out_channels;
  int64_t multiprocessors, multiprocessor_shared_bytes;
  Activation activation;
  const void* x;         // [images, pixels, channels]
  const void* weight;    // [out_channels, channels], halved where kHalved
  const float* bias;     // [out_channels] or null
  const float* gate;     // [images, channels] or null
  const void* residual;  // [images, pixels, out_channels] or null
  void* y;               // [images, pixels, out_channels]

  // Without a gate, images need not be told apart.
  int64_t gated_images() const { return gate || images == 0 ? images : 1; }
  int64_t gated_rows() const { return gate ? pixels : images * pixels; }
  int64_t row_groups() const { return gated_images() * divide_up(gated_rows(), kGroupRows); }
  MatrixShape shape() const {
    return {gated_images(), gated_rows(), out_channels, channels, multiprocessors, multiprocessor_shared_bytes};
  }
};

// From kStaged128x256 on in the order of choose_staged_tile().
enum class PointwiseTile {
  kFma,
  kRows,
  kResident64x128,
  kResident128x64,
  kStaged128x256,
  kStaged256x128,
  kStaged128x128,
  kStaged128x64,
  kStaged64x64,
  kSplit16x32,
  kSplit16x16
};

// Every access is of 16 bytes on tensor cores. EfficientNet has no gate in front of a SiLU, and so no kernel is
// compiled for that.
inline bool can_use_tensor_cores(const PointwiseConvCall& call, bool sixteen_bits) {
  return sixteen_bits && call.channels % 8 == 0 && call.out_channels % 8 == 0 && is_aligned(call.x) &&
         is_aligned(call.weight) && is_aligned(call.bias) && is_aligned(call.gate) && is_aligned(call.residual) &&
         is_aligned(call.y) && !(call.gate && call.activation == Activation::kSilu);
}

// Streaming pays where bandwidth is the limit: an input or output so narrow that a 16-bit product makes fewer than the
// 140 FLOP a byte that mma.sync keeps up with on an H200 (2 K N / (2 K + 2 N), so min(K, N) <= 128). The weights must
// leave room for a second block, and a worker needs row tiles enough to make loading them once worthwhile.
template <class Tile>
bool can_stream(const PointwiseConvCall& call) {
  using Traits = MatrixTraits<half, Tile, true>;
  return blocks_that_fit(Traits::shared_bytes(call.channels), call.multiprocessor_shared_bytes) >= 2 &&
         call.row_groups() / Tile::kGroups * divide_up(call.out_channels, Tile::kColumns) >=
             2 * Tile::kBlocks * call.multiprocessors;
}

// For a call on tensor cores.
inline PointwiseTile choose_pointwise_tile(const PointwiseConvCall& call) {
  if (call.out_channels <= 64 && can_stream<Resident128x64>(call)) return PointwiseTile::kResident128x64;
  if (call.channels <= 128 && can_stream<Resident64x128>(call)) return PointwiseTile::kResident64x128;
  const int place = choose_staged_tile<Staged128x256, Staged256x128, Staged128x128, Staged128x64, Staged64x64,
                                       Split16x32, Split16x16>(call.shape());
  return static_cast<PointwiseTile>(static_cast<int>(PointwiseTile::kStaged128x256) + place);
}

// For float32. Up to 32 rows, reading the weights once for each eight costs less than tiles that are mostly empty.
inline bool can_use_rows(const PointwiseConvCall& call) {
  return call.images * call.pixels <= 32 && !call.gate && call.channels % 4 == 0 && is_aligned(call.x) &&
         is_aligned(call.weight);
}

template <class T>
PointwiseConvArgs<T> pointwise_conv_args(const PointwiseConvCall& call, int64_t rows_of_group,
                                         int64_t columns_of_tile) {
  PointwiseConvArgs<T> args{};
  args.matrix = {static_cast<const T*>(call.x),
                 static_cast<const T*>(call.weight),
                 call.bias,
                 call.gate,
                 static_cast<const T*>(call.residual),
                 static_cast<int>(call.channels),
                 static_cast<int>(call.out_channels)};
  args.y = static_cast<T*>(call.y);
  args.images = static_cast<int>(call.gated_images());
  args.rows = call.gated_rows();
  args.image_groups = static_cast<int>(divide_up(args.rows, rows_of_group));
  if (args.image_groups > 0) args.by_image_groups = Divisor(static_cast<uint32_t>(args.image_groups));
  args.column_blocks = static_cast<int>(divide_up(call.out_channels, columns_of_tile));
  if (args.column_blocks > 0) args.by_column_blocks = Divisor(static_cast<uint32_t>(args.column_blocks));
  args.activation = call.activation;
  return args;
}

// Blocks of a tensor-core launch, for so many as run at once.
template <class Tile>
int64_t pointwise_conv_blocks(const MatrixShape& shape, int64_t at_once) {
  const int64_t row_tiles = shape.row_tiles<Tile>(), column_blocks = shape.column_blocks<Tile>();
  if (row_tiles * column_blocks == 0) return 0;
  if constexpr (Tile::kResident) {
    // Workers of one column each, less those that would only make the last round uneven.
    const int64_t workers = std::max<int64_t>(at_once / column_blocks, 1), rounds = divide_up(row_tiles, workers);
    return divide_up(row_tiles, rounds) * column_blocks;
  }
  int64_t blocks = std::min(row_tiles * column_blocks, at_once);
  // Where the last column of tiles is narrower than the others, every block is to have its share of it.
  if (blocks < row_tiles * column_blocks && shape.columns % Tile::kColumns != 0) {
    while (std::gcd(blocks, column_blocks) > 1) blocks--;
  }
  return blocks;
}

template <class T, class Tile, class Launcher>
void launch_pointwise_conv_tile(const PointwiseConvCall& call, Launcher& launcher) {
  auto args = pointwise_conv_args<T>(call, Tile::kWarpRows, Tile::kColumns);
  const MatrixShape shape = call.shape();
  args.tiles = static_cast<int>(shape.tiles<Tile>());
  const auto launch = [&]<bool kSilu, bool kGate>() {
    using Traits = PointwiseConvTraits<T, Tile, kSilu, kGate>;
    const int64_t shared = Traits::shared_bytes(call.channels);
    const int64_t fit = blocks_that_fit(shared, call.multiprocessor_shared_bytes);
    const int64_t at_once = call.multiprocessors * std::min<int64_t>(fit, Tile::kBlocks);
    launcher.template run<&pointwise_conv_kernel<Traits>>(
        LaunchShape{{grid_extent(pointwise_conv_blocks<Tile>(shape, at_once))},
                    Traits::kThreads,
                    static_cast<unsigned>(shared),
                    true},
        args);
  };
  if (call.gate)
    launch.template operator()<false, true>();
  else if (call.activation == Activation::kSilu)
    launch.template operator()<true, false>();
  else
    launch.template operator()<false, false>();
}

template <class T, class Launcher>
void launch_pointwise_conv_fma(const PointwiseConvCall& call, Launcher& launcher) {
  const auto launch = [&]<int kVector, bool kSilu>() {
    using Traits = FmaTraits<T, kVector, kSilu>;
    const auto args = pointwise_conv_args<T>(call, kGroupRows, Traits::kColumns);
    const LaunchShape shape{
        {grid_extent(call.row_groups() * args.column_blocks)}, Traits::kThreads, Traits::kSharedBytes, true};
    launcher.template run<&pointwise_conv_fma_kernel<Traits>>(shape, args);
  };
  const auto launch_vector = [&]<int kVector>() {
    if (call.activation == Activation::kSilu)
      launch.template operator()<kVector, true>();
    else
      launch.template operator()<kVector, false>();
  };
  if constexpr (sizeof(T) == 4) {
    if (call.channels % 4 == 0 && call.out_channels % 4 == 0 && is_aligned(call.x) && is_aligned(call.weight) &&
        is_aligned(call.gate) && is_aligned(call.residual) && is_aligned(call.y)) {
      return launch_vector.template operator()<4>();
    }
  }
  launch_vector.template operator()<1>();
}

template <class Launcher>
void launch_pointwise_conv_rows(const PointwiseConvCall& call, Launcher& launcher) {
  const int64_t rows = call.images * call.pixels;
  const auto launch = [&]<int kRows>() {
    using Traits = PointwiseRowsTraits<kRows>;
    PointwiseRowsArgs args{};
    args.matrix = pointwise_conv_args<float>(call, kRows, Traits::kColumns).matrix;
    args.y = static_cast<float*>(call.y);
    args.rows = static_cast<int>(rows);
    args.column_blocks = static_cast<int>(divide_up(call.out_channels, Traits::kColumns));
    args.activation = call.activation;
    const LaunchShape shape{{grid_extent(divide_up(rows, kRows) * args.column_blocks)}, Traits::kThreads, 0, true};
    launcher.template run<&pointwise_conv_rows_kernel<Traits>>(shape, args);
  };
  if (rows == 1)
    launch.template operator()<1>();
  else
    launch.template operator()<8>();
}

template <class T, class Launcher>
void launch_pointwise_conv(PointwiseTile tile, const PointwiseConvCall& call, Launcher& launcher) {
  if constexpr (sizeof(T) == 2) {
    switch (tile) {
      case PointwiseTile::kResident64x128: return launch_pointwise_conv_tile<T, Resident64x128>(call, launcher);
      case PointwiseTile::kResident128x64: return launch_pointwise_conv_tile<T, Resident128x64>(call, launcher);
      case PointwiseTile::kStaged128x256: return launch_pointwise_conv_tile<T, Staged128x256>(call, launcher);
      case PointwiseTile::kStaged256x128: return launch_pointwise_conv_tile<T, Staged256x128>(call, launcher);
      case PointwiseTile::kStaged128x128: return launch_pointwise_conv_tile<T, Staged128x128>(call, launcher);
      case PointwiseTile::kStaged128x64: return launch_pointwise_conv_tile<T, Staged128x64>(call, launcher);
      case PointwiseTile::kStaged64x64: return launch_pointwise_conv_tile<T, Staged64x64>(call, launcher);
      case PointwiseTile::kSplit16x32: return launch_pointwise_conv_tile<T, Split16x32>(call, launcher);
      case PointwiseTile::kSplit16x16: return launch_pointwise_conv_tile<T, Split16x16>(call, launcher);
      case PointwiseTile::kRows:
      case PointwiseTile::kFma: break;
    }
  } else {
    if (tile == PointwiseTile::kRows) return launch_pointwise_conv_rows(call, launcher);
  }
  launch_pointwise_conv_fma<T>(call, launcher);
}

template <class T, class Launcher>
void launch_pointwise_conv(const PointwiseConvCall& call, Launcher& launcher) {
  PointwiseTile tile = PointwiseTile::kFma;
  if (can_use_tensor_cores(call, sizeof(T) == 2))
    tile = choose_pointwise_tile(call);
  else if (sizeof(T) == 4 && can_use_rows(call))
    tile = PointwiseTile::kRows;
  launch_pointwise_conv<T>(tile, call, launcher);
}

}  // namespace effnet_fast::cuda
