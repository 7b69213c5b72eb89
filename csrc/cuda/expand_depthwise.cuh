// expand_depthwise and expand_depthwise_pool: expansion, activation, depthwise convolution, activation and the sums for
// squeeze-excite in one pass, so that the expanded tensor, six times the input, never reaches memory. NHWC, 16 bits.
//
// A block takes a tile of the output of one image. The input under it is in shared memory all along; the expanded
// channels pass through there kChunk at a time:
//
//   - expansion (expand_depthwise_expand.cuh): products of 16 pixels, activation, 16-bit values to shared memory
//   - a barrier (in the filter, behind the loads of its weights)
//   - depthwise convolution (expand_depthwise_filter.cuh) of the chunk from there, activation, stores, sums
//   - a barrier
//
// Two or three blocks share a multiprocessor, so that while one expands (special functions) another one filters (tensor
// cores). Pixels of the halo are expanded by several tiles: 1.1 to 1.6 times the work, for a sixth of the traffic.
#pragma once

#include "expand_depthwise_expand.cuh"
#include "expand_depthwise_filter.cuh"

namespace effnet_fast::cuda {

// The sums of a chunk to the row of this block: the block's later tiles are added to what this thread wrote for the
// earlier ones, in order, so that the total is the same in every run. Rows that no block has are zeros.
template <class Traits>
__device__ __forceinline__ void store_sums(const ExpandDepthwiseArgs<typename Traits::T>& args, int64_t image,
                                           int block, bool first_tile, Shared<float> pool, int chunk) {
  const int in_chunk = threadIdx.x, channel = chunk * Traits::kChunk + in_chunk;
  if (in_chunk >= Traits::kChunk || channel >= args.channels) return;
  const int parts = Traits::kTensorTaps ? args.places : Traits::kStrips;
  float total = 0.0f;
#pragma unroll 1
  for (int i = 0; i < parts; i++) total += load<float>(pool + (i * Traits::kChunk + in_chunk));
  auto to = args.sums + ((image * args.sum_rows + block) * args.channels + channel);
  if (!first_tile) {
    store(to, load<float>(to) + total);
    return;
  }
#pragma unroll 1
  for (int row = block; row < args.sum_rows; row += args.blocks) {
    store(to, total);
    total = 0.0f;
    to = to + static_cast<int64_t>(args.blocks) * args.channels;
  }
}

template <class Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kBlocks)
    expand_depthwise_kernel(const __grid_constant__ ExpandDepthwiseArgs<typename Traits::T> args) {
  using T = typename Traits::T;
  const int first_chunk = blockIdx.y * args.block_chunks;
  const int end_chunk = at_most(first_chunk + args.block_chunks, args.chunks);
  prefetch_weights<Traits>(args, first_chunk, end_chunk - first_chunk);
  const int block = blockIdx.x % args.blocks;
  const int64_t image = blockIdx.x / args.blocks;
  ExpandDepthwiseTile<T> tile{};
  tile.x = args.x + image * args.height * args.width * args.in_channels;

  const auto pixels = shared_memory<T>();                        // [positions][x_pitch]
  const auto expanded = pixels + args.positions * args.x_pitch;  // [all_positions][kPitch]
  const Shared<float> pool{(expanded + args.all_positions * Traits::kPitch).address};

  ptx::grid_dependency_launch();
  ptx::grid_dependency_wait();
  for (int i = block; i < args.tiles; i += args.blocks) {
    tile.row = i / args.tiles_x * args.tile_rows;
    tile.column = i % args.tiles_x * args.tile_columns;
    tile.rows = at_most(args.tile_rows, args.out_height - tile.row);
    tile.columns = at_most(args.tile_columns, args.out_width - tile.column);
    tile.y = args.y + ((image * args.out_height + tile.row) * args.out_width + tile.column) * args.channels;
    load_tile<Traits>(args, tile, pixels);
    ptx::cp_async_commit();
    // Products of 16 pixels with a row of the image in them; the others are zeros once and for all chunks.
    const int first_row = tile.row * Traits::kStride - args.top;
    const int above = at_most(at_least(-first_row, 0), args.in_rows);
    const int below = at_least(at_most(args.height - first_row, args.in_rows), above);
    const int first = above * args.pitch / 16, end = (below * args.pitch + 15) / 16;
    clear_outside<Traits>(args, expanded, first * 16, end * 16);
    ptx::cp_async_wait<0>();
    ptx::sync_threads();
#pragma unroll 1
    for (int chunk = first_chunk; chunk < end_chunk; chunk++) {
      expand_chunk<Traits>(args, pixels, expanded, chunk, first, end);
      if constexpr (Traits::kTensorTaps)
        filter_by_tensor_cores<Traits>(args, tile, expanded, pool, chunk);
      else
        filter_by_multiply_adds<Traits>(args, tile, expanded, pool, chunk);
      ptx::sync_threads();
      if (args.sums) store_sums<Traits>(args, image, block, i == block, pool, chunk);
    }
  }
}

}  // namespace effnet_fast::cuda
