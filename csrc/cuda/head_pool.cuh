// head_pool: y = mean over an image's pixels of activation(x @ weight^T + bias). The map is never stored: a block owns
// its images, adds up the activated columns in registers in a fixed order, and writes one row an image.
#pragma once

#include "matrix.cuh"
#include "matrix_fma.cuh"

namespace effnet_fast::cuda {

template <class T, class Tile, bool kSilu_>
struct HeadPoolTraits : MatrixTraits<T, Tile, false> {
  static constexpr bool kSilu = kSilu_;
  static_assert(!Tile::kResident && Tile::kWarpRows == kGroupRows);
};

template <class T>
struct HeadPoolArgs {
  MatrixArgs<T> matrix;
  Global<float> y;     // [images, columns]
  int images, pixels;  // of an image
  int column_blocks;
  Activation activation;

  __device__ RowGroup group(int image, int tile) const {
    const int left = image < images ? pixels - tile * kGroupRows : 0;
    return {image, static_cast<int64_t>(image) * pixels + tile * kGroupRows, left < kGroupRows ? left : kGroupRows};
  }
};

// Each group of 64 rows of the tile is another image's: one of 7 x 7 fills 49 of them, and with two images a tile the
// weights are read half as often.
template <class Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kBlocks)
    head_pool_kernel(const __grid_constant__ HeadPoolArgs<typename Traits::T> args) {
  using T = typename Traits::T;
  using Loop = MatrixLoop<Traits>;
  constexpr int kFragments = Loop::kColumnFragments;
  const int block = blockIdx.x / args.column_blocks, column_block = blockIdx.x - block * args.column_blocks;
  const int tiles = (args.pixels + kGroupRows - 1) / kGroupRows;
  const auto rows_of = [&](int tile, int group) { return args.group(block * Traits::kGroups + group, tile); };
  const auto column_of = [&](int) { return column_block * Traits::kColumns; };
  Loop loop(args.matrix);

  float totals[kFragments][2] = {};
  loop.run(tiles, rows_of, column_of, [&](int tile, typename Loop::Sums& sums, Shared<T>) {
    const RowGroup rows = rows_of(tile, loop.warp_group());
    activate_all<Traits::kSilu, T>(args.activation, sums);
#pragma unroll
    for (int i = 0; i < 2 * Loop::kRowFragments; i++) {
      if (8 * i + loop.thread_row() >= rows.count) continue;
#pragma unroll
      for (int j = 0; j < kFragments; j++) {
        totals[j][0] += sums[i / 2 * kFragments + j][i % 2 * 2];
        totals[j][1] += sums[i / 2 * kFragments + j][i % 2 * 2 + 1];
      }
    }
    if (tile + 1 < tiles) return;
    // Eight lanes have rows of the same columns. Of two that add up their totals one goes on with the even fragments,
    // the other with the odd ones, so that each value is shuffled once: 14 shuffles for 64 columns, where all totals in
    // all lanes take 48. In the end the lanes of thread_row() r have fragment r, or r % kFragments.
#pragma unroll
    for (int level = 0; level < 3; level++) {
      const int fragments = kFragments >> level, distance = 4 << level;
      const bool odd = loop.thread_row() >> level & 1;
#pragma unroll
      for (int v = 0; v < 2; v++) {
        if (fragments < 2) totals[0][v] += ptx::shuffle_xor(totals[0][v], distance);
#pragma unroll
        for (int j = 0; j + 1 < fragments; j += 2) {
          const float even_total = totals[j][v], odd_total = totals[j + 1][v];
          totals[j / 2][v] = (odd ? odd_total : even_total) + ptx::shuffle_xor(odd ? even_total : odd_total, distance);
        }
      }
    }
    const int fragment = loop.thread_row();
    constexpr int kRunFragments = Traits::kRunFragments;
    const int column =
        loop.thread_column() + fragment / kRunFragments * 8 * kRunFragments + fragment % kRunFragments * 2;
    if (fragment >= kFragments || rows.image >= args.images || column >= args.matrix.columns) return;
    const float mean[2] = {totals[0][0] / args.pixels, totals[0][1] / args.pixels};
    store(args.y + static_cast<int64_t>(rows.image) * args.matrix.columns + column, pack<float>(mean));
  });
}

// Any storage type, any channels, a block for each image and 64 columns.
template <class Traits>
__global__ void __launch_bounds__(Traits::kThreads)
    head_pool_fma_kernel(const __grid_constant__ HeadPoolArgs<typename Traits::T> args) {
  using T = typename Traits::T;
  using Loop = FmaLoop<Traits>;
  const int image = blockIdx.x / args.column_blocks;
  const int first_column = (blockIdx.x - image * args.column_blocks) * Traits::kColumns;
  const Loop loop(args.matrix, first_column);
  float totals[4] = {};
  typename Loop::Values weight;
  loop.load_weights(0, weight);  // travels while the launch before drains
  ptx::grid_dependency_launch();
  ptx::grid_dependency_wait();
  for (int tile = 0; tile * kGroupRows < args.pixels; tile++) {
    const RowGroup rows = args.group(image, tile);
    typename Loop::Sums sums;
    if (tile > 0) loop.load_weights(0, weight);
    loop.multiply(rows, weight, sums);
    activate_all<Traits::kSilu, T>(args.activation, sums);
#pragma unroll
    for (int i = 0; i < Traits::kThreadRows; i++) {
#pragma unroll
      for (int j = 0; j < 4; j++) totals[j] += loop.row() + i < rows.count ? sums[i][j] : 0.0f;
    }
  }

  const Shared<float> partial = shared_memory<float>();  // [kRowThreads][kColumns]
  store(partial + (loop.row() / Traits::kThreadRows * Traits::kColumns + loop.column() - first_column),
        pack<float>(totals));
  ptx::sync_threads();
  const int column = first_column + static_cast<int>(threadIdx.x);
  if (threadIdx.x >= Traits::kColumns || column >= args.matrix.columns) return;
  float total = 0.0f;
#pragma unroll
  for (int r = 0; r < Traits::kRowThreads; r++) {
    total += load<float>(partial + (r * Traits::kColumns + static_cast<int>(threadIdx.x)));
  }
  store(args.y + static_cast<int64_t>(image) * args.matrix.columns + column, total / args.pixels);
}

}  // namespace effnet_fast::cuda
