// pointwise_conv: y = activation(x gate @ weight^T + bias) + residual, a matrix product over pixels.
#pragma once

#include "matrix.cuh"
#include "matrix_fma.cuh"

namespace effnet_fast::cuda {

// n / d for n below 2^31 by one multiplication (Granlund and Montgomery): a tile asks for its image three times, and a
// division is 35 instructions and a chain of conversions.
struct Divisor {
  uint32_t multiplier;
  int shift;

  __host__ __device__ constexpr explicit Divisor(uint32_t d) : multiplier(0), shift(31) {
    while ((uint64_t{1} << (shift - 31)) < d) shift++;
    multiplier = static_cast<uint32_t>(((uint64_t{1} << shift) + d - 1) / d);
  }
  __host__ __device__ constexpr int divide(int n) const {
    return static_cast<int>(static_cast<uint64_t>(n) * multiplier >> shift);
  }
};
static_assert(Divisor(1).divide(0x7fffffff) == 0x7fffffff && Divisor(3).divide(0x7fffffff) == 0x7fffffff / 3);
static_assert(Divisor(7).divide(48) == 6 && Divisor(7).divide(49) == 7 && Divisor(0x7fffffff).divide(0x7ffffffe) == 0);

template <class T, class Tile, bool kSilu_, bool kGate>
struct PointwiseConvTraits : MatrixTraits<T, Tile, kGate> {
  static constexpr bool kSilu = kSilu_;
};

template <class T>
struct PointwiseConvArgs {
  MatrixArgs<T> matrix;
  Global<T> y;   // [rows, columns]
  int64_t rows;  // of an image; without a gate all images are one
  int images, image_groups;
  Divisor by_image_groups{1}, by_column_blocks{1};
  int tiles, column_blocks;
  Activation activation;

  template <int kRows = kGroupRows>
  __device__ RowGroup group(int index) const {
    const int image = by_image_groups.divide(index);
    const int64_t first = static_cast<int64_t>(index - image * image_groups) * kRows;
    const int64_t left = image < images ? rows - first : 0;
    return {image, image * rows + first, static_cast<int>(left < kRows ? left : kRows)};
  }
};

// Tiles are numbered along a row of tiles first, and a block takes every gridDim.x-th. So what runs at once, 132 tiles
// on an H200, shares its rows: they come from memory once, and then from the L2 cache. It also reads the weights of
// all columns, 4.9 MB in the widest layer of B7, which therefore stay there (50 MB). An order by squares, of fewer rows
// and columns at once, would spare the cache 17 % of that layer's footprint and no traffic. Where weights are resident,
// gridDim.x is a multiple of column_blocks, and so a block's column is always the same.
template <class Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kBlocks)
    pointwise_conv_kernel(const __grid_constant__ PointwiseConvArgs<typename Traits::T> args) {
  using T = typename Traits::T;
  using Loop = MatrixLoop<Traits>;
  const int first = blockIdx.x, stride = gridDim.x;
  const int tiles = (args.tiles - first + stride - 1) / stride;
  const int first_row_tile = args.by_column_blocks.divide(first), row_stride = args.by_column_blocks.divide(stride);
  const auto row_tile = [&](int tile) {
    if constexpr (Traits::kResident) return first_row_tile + tile * row_stride;
    return args.by_column_blocks.divide(first + tile * stride);
  };
  const auto rows_of = [&](int tile, int group) {
    return args.template group<Traits::kWarpRows>(row_tile(tile) * Traits::kGroups + group);
  };
  const auto column_of = [&](int tile) {
    const int index = Traits::kResident ? first : first + tile * stride;
    return (index - args.by_column_blocks.divide(index) * args.column_blocks) * Traits::kColumns;
  };
  Loop loop(args.matrix);

  loop.run(tiles, rows_of, column_of, [&](int tile, typename Loop::Sums& sums, Shared<T> residual) {
    const RowGroup rows = rows_of(tile, loop.warp_group());
    activate_all<Traits::kSilu, T>(args.activation, sums);
    if (args.matrix.residual) loop.add_residual(residual, sums);
    const int columns = args.matrix.columns, left = rows.count - loop.thread_row();
    const Global<T> y = args.y + (rows.first + loop.thread_row()) * columns + loop.thread_column();
#pragma unroll
    for (int i = 0; i < 2 * Loop::kRowFragments; i++) {
#pragma unroll
      for (int j = 0; j < Loop::kColumnFragments; j += Traits::kRunFragments) {
        if (8 * i >= left || loop.thread_column() + 8 * j >= columns) continue;
        float values[Traits::kRun];
#pragma unroll
        for (int v = 0; v < Traits::kRun; v++) values[v] = Loop::value(sums, i, j, v);
        store(y + (8 * i * columns + 8 * j), pack<T>(values));
      }
    }
  });
}

// Any storage type, any channels, a block for each 64 rows and 64 columns.
template <class Traits>
__global__ void __launch_bounds__(Traits::kThreads)
    pointwise_conv_fma_kernel(const __grid_constant__ PointwiseConvArgs<typename Traits::T> args) {
  using T = typename Traits::T;
  using Loop = FmaLoop<Traits>;
  using Access = Pack<T, Traits::kVector>;
  const int row_tile = blockIdx.x / args.column_blocks;
  const RowGroup rows = args.group(row_tile);
  const Loop loop(args.matrix, static_cast<int>(blockIdx.x - row_tile * args.column_blocks) * Traits::kColumns);
  typename Loop::Sums sums;
  typename Loop::Values weight;
  loop.load_weights(0, weight);  // travels while the launch before drains
  ptx::grid_dependency_launch();
  ptx::grid_dependency_wait();
  loop.multiply(rows, weight, sums);
  activate_all<Traits::kSilu, T>(args.activation, sums);
#pragma unroll
  for (int i = 0; i < Traits::kThreadRows; i++) {
    if (loop.row() + i >= rows.count) break;
    const int64_t first = (rows.first + loop.row() + i) * args.matrix.columns;
#pragma unroll
    for (int j = 0; j < Traits::kThreadColumns; j += Traits::kVector) {
      const int column = loop.column() + j;
      if (column >= args.matrix.columns) break;
      float values[Traits::kVector];
#pragma unroll
      for (int v = 0; v < Traits::kVector; v++) values[v] = sums[i][j + v];
      if (args.matrix.residual) {
        float other[Traits::kVector];
        unpack(load<Access>(args.matrix.residual + (first + column)), other);
#pragma unroll
        for (int v = 0; v < Traits::kVector; v++) values[v] += other[v];
      }
      store(args.y + (first + column), pack<T>(values));
    }
  }
}

}  // namespace effnet_fast::cuda
