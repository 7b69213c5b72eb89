// expand_depthwise: what a block of it is, and how a tile of the input comes to shared memory.
#pragma once

#include "activation.cuh"

namespace effnet_fast::cuda {

// Expanded channels, in units of which packed weights are padded: every chunk divides it.
inline constexpr int kExpandedUnit = 96;

// kChunk_ expanded channels at a time; an item of the depthwise convolution is 8 columns of 2 bands of kRows_ rows.
// kTensorTaps_: its products on tensor cores, else multiply-adds. kSilu_: both activations, on halved weights.
template <class T_, int kKernel_, int kStride_, int kChunk_, int kRows_, bool kSilu_, bool kTensorTaps_ = true>
struct ExpandDepthwiseTraits {
  using T = T_;
  static constexpr int kKernel = kKernel_, kStride = kStride_;
  static constexpr int kChunk = kChunk_, kRows = kRows_;
  static constexpr bool kSilu = kSilu_, kTensorTaps = kTensorTaps_;

  static constexpr int kPairs = kChunk / 16;  // of 8 channels: two mma, neighbours in memory
  static constexpr int kPitch = kChunk + 8;   // of an expanded pixel: ldmatrix and stmatrix meet each bank once
  // The depthwise items of a chunk are a multiple of kPairs, which the warps divide.
  static constexpr int kWarps = kPairs == 3 ? 6 : 4;
  static constexpr int kThreads = 32 * kWarps;
  // Of a multiprocessor, as far as registers go: 168 or 255 a thread.
  static constexpr int kBlocks = kPairs == 3 || (kKernel == 5 && (kRows > 4 || kStride == 2)) ? 2 : 3;
  static constexpr int kMaxSteps = 9;  // of 16 input channels and the bias: up to 128

  // Multiply-adds: a thread has two channels, and 2 rows of 4 columns at a time.
  static constexpr int kStripRows = 2, kStripColumns = 4;
  static constexpr int kStrips = kThreads / (kChunk / 2);  // that the block computes at once

  static_assert(sizeof(T) == 2 && kChunk % 16 == 0 && kExpandedUnit % kChunk == 0);
  static_assert(kThreads % (kChunk / 2) == 0);
  static_assert((kKernel == 3 || kKernel == 5) && (kStride == 1 || kStride == 2));
};

template <class T>
struct ExpandDepthwiseArgs {
  Global<const T> x;  // [images, height, width, in_channels]
  // [pairs][steps][lanes][4]: of each lane, the operands of two mma.
  Global<const uint32_t> expand;
  Global<const uint32_t> taps;  // [groups of 8 channels][taps / 4][8][4]: a tap in its channel's half of the word
  Global<const T> weight;       // [taps, channels]: the same for multiply-adds
  Global<const float> bias;     // [channels] of the depthwise convolution
  Global<T> y;                  // [images, out_height, out_width, channels]
  Global<float> sums;           // [images, sum_rows, channels] or null
  int in_channels, channels, height, width, out_height, out_width;
  int top, left;
  Activation expand_activation, activation;

  int tile_rows, tile_columns;  // of the output
  int tiles, tiles_x;           // of an image
  int blocks;                   // of an image: each takes every blocks-th tile, and one row of sums
  int sum_rows;
  int chunks, block_chunks;  // in all; of a block

  // Pixels of the input tile are rows of shared memory, one line after the other, `pitch` apart.
  int in_rows, pitch;
  int odd;                                   // at stride 2, even columns come first, and odd ones begin here
  int positions;                             // in whole products of 16
  int all_positions;                         // and behind them what the last items read: zeros
  int x_pitch;                               // elements of a pixel
  int load_pixels, load_rows, load_columns;  // that the block copies at once: load_rows * pitch + load_columns

  int groups, places;  // of 8 columns; items of a pair
  int by_groups;       // place * by_groups >> 16 is place / groups
};

// A tile of the output, and the image that it is in.
template <class T>
struct ExpandDepthwiseTile {
  int row, column;
  int rows, columns;  // inside the output
  Global<const T> x;  // the image
  Global<T> y;        // the first pixel of the tile
};

__device__ __forceinline__ int at_least(int a, int b) { return a > b ? a : b; }
__device__ __forceinline__ int at_most(int a, int b) { return a < b ? a : b; }

// Copies the pixels under `tile`, [channels | 1 1 1 0 0 0 0 0] each, and zeros where there is no image. The ones meet
// the bias, which three rows of the weights hold: three 16-bit values make up a float32 one (3 x 8 bits of a bfloat16).
// So the expansion outside the image is the activation of 0, which is 0, with no mask and whatever the bias.
template <class Traits>
__device__ __forceinline__ void load_tile(const ExpandDepthwiseArgs<typename Traits::T>& args,
                                          const ExpandDepthwiseTile<typename Traits::T>& tile,
                                          Shared<typename Traits::T> to) {
  using T = typename Traits::T;
  const int vectors = args.in_channels / 8 + 1;
  const int vector = threadIdx.x % vectors, first = threadIdx.x / vectors;
  if (first >= args.load_pixels) return;
  const bool ones = vector == vectors - 1;
  const Pack<T, 8> three_ones{pack_word<T>(1.0f, 1.0f), pack_word<T>(1.0f, 0.0f), 0, 0};
  const int first_row = tile.row * Traits::kStride - args.top, first_column = tile.column * Traits::kStride - args.left;
  int row = first / args.pitch, column = first % args.pitch;
#pragma unroll 2
  for (int position = first; position < args.positions; position += args.load_pixels) {
    const int y = first_row + row;
    const int x = first_column + (Traits::kStride == 1 ? column
                                  : column < args.odd  ? 2 * column
                                                       : 2 * (column - args.odd) + 1);
    const bool inside = row < args.in_rows && static_cast<unsigned>(y) < static_cast<unsigned>(args.height) &&
                        static_cast<unsigned>(x) < static_cast<unsigned>(args.width);
    const auto pixel = to + (position * args.x_pitch + vector * 8);
    if (ones)
      store(pixel, inside ? three_ones : Pack<T, 8>{});
    else
      cp_async<16>(pixel, tile.x + (inside ? (y * args.width + x) * args.in_channels + vector * 8 : 0), inside);
    row += args.load_rows;
    column += args.load_columns;
    if (column >= args.pitch) {
      column -= args.pitch;
      row++;
    }
  }
}

// Zeros in the expanded pixels [0, first) and [end, all_positions), which no expansion writes.
template <class Traits>
__device__ __forceinline__ void clear_outside(const ExpandDepthwiseArgs<typename Traits::T>& args,
                                              Shared<typename Traits::T> expanded, int first, int end) {
  constexpr int kVectors = Traits::kChunk / 8;
  const int count = (first + args.all_positions - end) * kVectors;
  for (int i = threadIdx.x; i < count; i += Traits::kThreads) {
    const int pixel = i / kVectors, vector = i % kVectors;
    const int position = pixel < first ? pixel : pixel - first + end;
    store(expanded + (position * Traits::kPitch + vector * 8), Pack<typename Traits::T, 8>{});
  }
}

// The weights of this block, to the L2 cache while the launch before it ends.
template <class Traits>
__device__ __forceinline__ void prefetch_weights(const ExpandDepthwiseArgs<typename Traits::T>& args, int first_chunk,
                                                 int chunks) {
  constexpr int kLine = 32;  // words
  const auto each_line = [&](Global<const uint32_t> words, int count) {
    for (int word = threadIdx.x * kLine; word < count; word += Traits::kThreads * kLine) prefetch(words + word);
  };
  const int steps = args.in_channels / 16 + 1;
  const int expand_words = Traits::kPairs * steps * 32 * 4;
  each_line(args.expand + static_cast<int64_t>(first_chunk) * expand_words, chunks * expand_words);
  if constexpr (Traits::kTensorTaps) {
    constexpr int kWords = Traits::kChunk * ((Traits::kKernel * Traits::kKernel + 3) / 4 * 4);
    each_line(args.taps + static_cast<int64_t>(first_chunk) * kWords, chunks * kWords);
  }
}

}  // namespace effnet_fast::cuda
