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
  Divisor by_image_groups{1};
  int row_tiles, column_blocks, workers;
  Activation activation;

  __device__ RowGroup group(int index) const {
    const int image = by_image_groups.divide(index);
    const int64_t first = static_cast<int64_t>(index - image * image_groups) * kGroupRows;
    const int64_t left = image < images ? rows - first : 0;
    return {image, image * rows + first, static_cast<int>(left < kGroupRows ? left : kGroupRows)};
  }
};

// Blocks that share rows are neighbours, so that the rows come from memory once and then from the L2 cache; the
// `workers` blocks of a column take every workers-th row tile.
template <class Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kBlocks)
    pointwise_conv_kernel(const __grid_constant__ PointwiseConvArgs<typename Traits::T> args) {
  using T = typename Traits::T;
  using Loop = MatrixLoop<Traits>;
  const int worker = blockIdx.x / args.column_blocks, column_block = blockIdx.x - worker * args.column_blocks;
  const int tiles = (args.row_tiles - worker + args.workers - 1) / args.workers;
  const auto rows_of = [&](int tile, int group) {
    return args.group((worker + tile * args.workers) * Traits::kGroups + group);
  };
  Loop loop(args.matrix, column_block * Traits::kColumns);

  loop.run(tiles, rows_of, [&](int tile, typename Loop::Sums& sums, Shared<T> residual) {
    const RowGroup rows = rows_of(tile, loop.warp_group());
    activate_all<Traits::kSilu, T>(args.activation, sums);
    if (args.matrix.residual) loop.add_residual(residual, sums);
    const int columns = args.matrix.columns, left = rows.count - loop.thread_row();
    const Global<T> y = args.y + (rows.first + loop.thread_row()) * columns + loop.thread_column();
#pragma unroll
    for (int i = 0; i < 2 * Loop::kRowFragments; i++) {
#pragma unroll
      for (int j = 0; j < Loop::kColumnFragments; j += 4) {
        if (8 * i >= left || loop.thread_column() + 8 * j >= columns) continue;
        float values[8];
#pragma unroll
        for (int v = 0; v < 8; v++) values[v] = Loop::value(sums, i, j, v);
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
  ptx::grid_dependency_launch();
  ptx::grid_dependency_wait();
  loop.multiply(rows, sums);
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
