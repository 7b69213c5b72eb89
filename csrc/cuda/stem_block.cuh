// stem_block_sums and stem_block: a network's first convolution and its first block, without the maps between them.
//
//   stem_block_sums   image -> stem -> depthwise 3 x 3 -> sums of tiles, for squeeze-excite
//   stem_block        image -> stem -> depthwise 3 x 3 x gate -> projection -> y
//
// Squeeze-excite needs the whole map before any of it can be scaled, so the second kernel computes again what the
// first one did: in B0 that are 3.2 MB of 16-bit maps an image (stem and depthwise output, each written and read) that
// never pass through memory, for reading the image twice and for 4.6 SiLU a value where three kernels have 2. It takes
// about 40 instructions of a thread for an output of the filter, a quarter of them for pixels: more than an H200 has
// time for while its memory moves those bytes, and a third of what an RTX 4090 has (inference/stem_form.py compares).
//
// A block makes 16 x 16 pixels, one tile of the sums, in chunks of up to 32 channels:
//
//   patch   37 x 37 pixels of the image, normalised, staged once (stem_conv.cuh: operands of mma are loads from it)
//   map     18 x 18 pixels of the stem's output in 16 bits; zero outside the image, where the depthwise convolution
//           is padded: after the activation, since SiLU(bias) is not zero
//   filter  on tensor cores too: a tap is the product with a diagonal matrix, and a pair of taps one mma. That takes
//           2 instructions an output, where multiply-adds alone take 9. A warp has 4 rows.
//   gate    and rounding: what the filter left in a thread is its operand of the projection
//
// The diagonal multiplies seven other channels by zero, so an infinity or a NaN of one of them is a NaN in all eight.
#pragma once

#include "stem_conv.cuh"

namespace effnet_fast::cuda {

// kOutFragments_: of 8 output channels each; 0 is stem_block_sums.
template <class T_, bool kSilu_, int kOutFragments_>
struct StemBlockTraits {
  using T = T_;
  static constexpr bool kSilu = kSilu_;
  static constexpr int kOutFragments = kOutFragments_;
  static constexpr bool kSums = kOutFragments == 0;
  static constexpr int kTile = 16;            // of the sums; one mma has its columns
  static constexpr int kMapSide = kTile + 2;  // with what the 3 x 3 filter sees around it
  static constexpr int kMapPixels = kMapSide * kMapSide;
  static constexpr int kWarps = 4, kThreads = 32 * kWarps;
  static constexpr int kRows = kTile / kWarps;  // of a warp
  // Registers: 80 a thread for the sums, then up to 128, 168 and 255, as the accumulators of the projection grow.
  static constexpr int kBlocks = kSums ? 6 : kOutFragments <= 3 ? 4 : kOutFragments <= 4 ? 3 : 2;
  static constexpr int kGroup = 8;                                           // channels of a fragment
  static constexpr int kChunkGroups = 4, kMapPixel = kChunkGroups * kGroup;  // 64 bytes of a pixel
  // Neighbouring fragments whose columns are dealt so that a thread has 2 of each in a row: it stores 16, 8 or 4 bytes.
  static constexpr int kJoined = kOutFragments % 4 == 0 ? 4 : kOutFragments % 2 == 0 ? 2 : 1;

  // Of the stem.
  static constexpr int kKernel = 3, kStride = 2, kInChannels = 3;
  static constexpr int kRowTaps = kKernel * kInChannels, kRowWords = (kRowTaps + 1) / 2;
  static constexpr int kPixel = kStride * kInChannels;
  static constexpr int kRowValues = (kMapSide - 1) * kPixel + kRowTaps;
  static constexpr int kPitch = (kRowValues + 4) / 4 * 4;  // with the tenth value of the last pixel
  static constexpr int kRowsAtOnce = 5;                    // of a warp, whose pixels are in flight
  static constexpr int kPatchRows =
      ((kMapSide - 1) * kStride + kKernel + kWarps * kRowsAtOnce - 1) / (kWarps * kRowsAtOnce) * (kWarps * kRowsAtOnce);

  // Weights in shared memory, of a channel: K of the stem as 16 words, the last of which is the bias in two parts, and
  // 4 empty ones so that ldmatrix meets every bank once; the 9 taps of the filter as 12 words. Behind them 16 bytes of
  // zeros.
  static constexpr int kStemWords = 16, kStemPitch = 40, kFilterQuads = 3, kFilterTaps = 9;
  static constexpr int kPatchBytes = kPatchRows * kPitch * 2;
  // In whole mma of 16 pixels: what lies behind the map is stored, too, and read by nobody.
  static constexpr int kMapBytes = (kMapPixels + 15) / 16 * 16 * kMapPixel * 2;
  static constexpr int kWeightsAt = kPatchBytes + kMapBytes;
  __host__ __device__ static constexpr int filters_at(int channels) { return kWeightsAt + channels * kStemPitch * 2; }
  __host__ __device__ static constexpr int partial_at(int channels) {
    return filters_at(channels) + (channels * kFilterQuads + 1) * 16;
  }
  static constexpr int shared_bytes(int channels) {
    return partial_at(channels) + (kSums ? kWarps * channels * static_cast<int>(sizeof(float)) : 0);
  }

  // Output channel of column `column` of a fragment.
  __host__ __device__ static constexpr int out_channel(int fragment, int column) {
    return fragment / kJoined * (8 * kJoined) + column / 2 * (2 * kJoined) + fragment % kJoined * 2 + column % 2;
  }

  static_assert(sizeof(T) == 2 && kPitch <= 4 * 32 && kKernel * kRowWords == kStemWords - 1);
  static_assert(kPatchBytes % 64 == 0 && kMapBytes % 16 == 0 && kMapSide % 8 == 2, "see make_map()");
};

template <class T_>
struct StemBlockArgs {
  StemImage image;
  Global<const T_> w_stem;       // [channels, 3, 3, 3]
  Global<const float> b_stem;    // [channels]
  Global<const T_> w_filter;     // [9, channels]
  Global<const float> b_filter;  // [channels]
  Global<const T_> w_project;    // [out_channels, channels]
  Global<const float> b_project;
  Global<const float> gate;  // [images, channels] or null
  Global<T_> y;              // [images, out_height, out_width, out_channels]
  Global<float> sums;        // [images, tiles, channels]
  int channels, out_channels;
  int out_height, out_width;  // of the stem, of the filter and of y
  int top, left;              // of the stem
  int tiles, tiles_x;         // of an image
  int chunk_groups;           // of 8 channels: up to kChunkGroups, as equal as can be
  Activation activation;
};

// Where in `map` 8 channels of a pixel begin. Eight neighbours of a row put them at eight different places of their
// two lines of 128 bytes: neither ldmatrix nor the stores of a warp meet a bank twice.
template <class Traits>
__device__ __forceinline__ int map_offset(int row, int column, int group) {
  return (row * Traits::kMapSide + column) * Traits::kMapPixel + (group ^ column / 2 % 4) * Traits::kGroup;
}

// The weights of both convolutions, which do not depend on the launch before: they are staged while it drains.
template <class Traits>
__device__ __forceinline__ void stage_weights(const StemBlockArgs<typename Traits::T>& args,
                                              Shared<typename Traits::T> stem, Shared<typename Traits::T> filters) {
  using T = typename Traits::T;
  const int word = threadIdx.x % Traits::kStemWords;
  const int ky = word / Traits::kRowWords, tap = word % Traits::kRowWords * 2;
  for (int channel = threadIdx.x / Traits::kStemWords; channel < args.channels;
       channel += Traits::kThreads / Traits::kStemWords) {
    uint32_t value;
    if (ky < Traits::kKernel) {
      const auto from = args.w_stem + (static_cast<int64_t>(channel * Traits::kKernel + ky) * Traits::kRowTaps + tap);
      value = load_constant<uint16_t>(from);
      if (tap + 1 < Traits::kRowTaps) value |= static_cast<uint32_t>(load_constant<uint16_t>(from + 1)) << 16;
    } else {
      const float bias = load_constant<float>(args.b_stem + channel);
      const float rest = bias - to_float(to_storage<T>(bias));
      value = pack_word<T>(bias, rest - rest == 0.0f ? rest : 0.0f);  // of an infinite bias nothing is left
    }
    store(stem + (channel * Traits::kStemPitch + 2 * word), value);
  }
  // A word has the tap in the half in which the channel is in an operand of mma. [groups][quads of taps][8 channels]
  for (int i = threadIdx.x; i <= args.channels * Traits::kFilterQuads; i += Traits::kThreads) {
    const int quad = i / Traits::kGroup % Traits::kFilterQuads;
    const int channel = i / (Traits::kGroup * Traits::kFilterQuads) * Traits::kGroup + i % Traits::kGroup;
    Pack<T, 8> words{};
#pragma unroll
    for (int v = 0; v < 4; v++) {
      const int place = 4 * quad + v;
      if (place >= Traits::kFilterTaps || channel >= args.channels) continue;
      // The left and the middle tap of each row, then the right ones.
      const int tap = place < 6 ? place / 2 * 3 + place % 2 : (place - 6) * 3 + 2;
      const uint32_t bits = load_constant<uint16_t>(args.w_filter + (tap * args.channels + channel));
      words.words[v] = channel % 2 == 0 ? bits : bits << 16;
    }
    store(filters + 8 * i, words);
  }
}

// Rows of the image as [rows][columns][channels], normalised; a warp takes every fourth, and a thread 4 values of it.
template <class Traits, class Pixel>
__device__ __forceinline__ void stage_pixels(const StemImage& image, int64_t n, int first_row, int first_column,
                                             Shared<typename Traits::T> patch) {
  const int first = ptx::lane() * 4, warp = threadIdx.x / 32;
  if (first >= Traits::kPitch) return;
  const auto channel = [&](int v) { return (first + v) % Traits::kInChannels; };
  const Normalisation normalise[Traits::kInChannels] = {{image, channel(0)}, {image, channel(1)}, {image, channel(2)}};
  // Outside the image its outermost values are read, and not kept.
  int64_t offset[4];
  uint32_t keep[2] = {};
#pragma unroll
  for (int v = 0; v < 4; v++) {
    int x = first_column + (first + v) / Traits::kInChannels;
    if (x >= 0 && x < image.width && first + v < Traits::kRowValues) keep[v / 2] |= v % 2 == 0 ? 0xffffu : 0xffff0000u;
    x = x < 0 ? 0 : x < image.width ? x : image.width - 1;
    offset[v] = channel(v) * image.stride_c + x * image.stride_w;
  }
  const auto pixels = Global<const Pixel>(static_cast<const Pixel*>(image.pixels)) + n * image.stride_n;
#pragma unroll 1
  for (int batch = warp; batch < Traits::kPatchRows; batch += Traits::kWarps * Traits::kRowsAtOnce) {
    Pixel values[Traits::kRowsAtOnce][4];
#pragma unroll
    for (int i = 0; i < Traits::kRowsAtOnce; i++) {
      int y = first_row + batch + i * Traits::kWarps;
      y = y < 0 ? 0 : y < image.height ? y : image.height - 1;
      const auto from = pixels + y * image.stride_h;
#pragma unroll
      for (int v = 0; v < 4; v++) values[i][v] = load<Pixel>(from + offset[v]);
    }
#pragma unroll
    for (int i = 0; i < Traits::kRowsAtOnce; i++) {
      const int row = batch + i * Traits::kWarps;
      const bool inside = static_cast<unsigned>(first_row + row) < static_cast<unsigned>(image.height);
      float normal[4];
#pragma unroll
      for (int v = 0; v < 4; v++) normal[v] = normalise[v % 3](pixel_value(values[i][v]));
      auto packed = pack<typename Traits::T>(normal);
      packed.words[0] &= inside ? keep[0] : 0;
      packed.words[1] &= inside ? keep[1] : 0;
      store(patch + (row * Traits::kPitch + first), packed);
    }
  }
}

// The stem's output under the tile: `groups` groups of channels from `first_group` on.
template <class Traits>
__device__ __forceinline__ void make_map(const StemBlockArgs<typename Traits::T>& args, int first_row, int first_column,
                                         int first_group, int groups, Shared<typename Traits::T> patch,
                                         Shared<typename Traits::T> weights, Shared<typename Traits::T> map) {
  using T = typename Traits::T;
  constexpr int kWords = 4;  // a thread's words of K
  constexpr int kFragments = Traits::kChunkGroups;
  const int lane = ptx::lane(), group = lane / 4, quad = lane % 4;

  // Words quad, quad + 4, ... of K: where they are behind a pixel's first value, what of them counts, and the ones by
  // which the bias is multiplied.
  int offset[kWords];
  uint32_t mask[kWords];
#pragma unroll
  for (int i = 0; i < kWords; i++) {
    const int word = 4 * i + quad, ky = word / Traits::kRowWords, tap = word % Traits::kRowWords * 2;
    offset[i] = ky < Traits::kKernel ? ky * Traits::kPitch + tap : 0;
    mask[i] = ky >= Traits::kKernel ? 0 : tap + 1 < Traits::kRowTaps ? 0xffffffff : 0xffff;
  }
  const uint32_t ones = quad == 3 ? pack_word<T>(1.0f, 1.0f) : 0;
  uint32_t b[kFragments][kWords] = {};
#pragma unroll
  for (int f = 0; f < kFragments; f++) {
    const int channel = (first_group + f) * Traits::kGroup + lane % 8;
    if (f < groups) ldmatrix(b[f], weights + (channel * Traits::kStemPitch + lane / 8 * 8));
  }

  // 16 pixels at a time, counted through the rows: 21 times, where 18 rows of 18 would be 36 times.
#pragma unroll 1
  for (int first = threadIdx.x / 32 * 16; first < Traits::kMapPixels; first += Traits::kWarps * 16) {
    Shared<T> to[2];
    uint32_t keep[2];
    uint32_t a[2][4];
#pragma unroll
    for (int j = 0; j < 2; j++) {
      const int pixel = first + group + 8 * j, row = pixel / Traits::kMapSide, column = pixel - row * Traits::kMapSide;
      const int y = first_row - 1 + row, x = first_column - 1 + column;
      const bool inside = static_cast<unsigned>(y) < static_cast<unsigned>(args.out_height) &&
                          static_cast<unsigned>(x) < static_cast<unsigned>(args.out_width);
      keep[j] = inside ? 0xffffffff : 0;
      to[j] = map + (map_offset<Traits>(row, column, 0) + 2 * quad);
      // Behind the map's last pixel the patch still has values.
      const auto from = patch + (row * Traits::kStride * Traits::kPitch + column * Traits::kPixel);
#pragma unroll
      for (int i = 0; i < kWords; i++) {
        const uint32_t word = load<uint32_t>(from + offset[i]);
        // The first words are before the end of a row of taps in every thread.
        a[i / 2][i % 2 * 2 + j] = 4 * i + 4 < Traits::kRowWords ? word : word & mask[i];
      }
      a[1][2 + j] |= ones;
    }
    float sums[kFragments][4];
    const float zeros[4] = {};
#pragma unroll
    for (int f = 0; f < kFragments; f++) {
      const uint32_t first_half[2] = {b[f][0], b[f][1]};
      mma<T>(sums[f], a[0], first_half, zeros);
    }
#pragma unroll
    for (int f = 0; f < kFragments; f++) mma<T>(sums[f], a[1], {b[f][2], b[f][3]});
#pragma unroll
    for (int f = 0; f < kFragments; f++) {
      if (f >= groups) break;
      float values[1][4] = {{sums[f][0], sums[f][1], sums[f][2], sums[f][3]}};
      activate_all<Traits::kSilu, T>(args.activation, values);
#pragma unroll
      for (int j = 0; j < 2; j++) {
        const uint32_t word = pack_word<T>(values[0][2 * j], values[0][2 * j + 1]) & keep[j];
        // As map_offset() has it: 64 bytes of a pixel begin at a multiple of 64.
        store(Shared<T>{to[j].address ^ static_cast<uint32_t>(f * Traits::kGroup * 2)}, word);
      }
    }
  }
}

// The filtered and activated values of a warp's rows: [row][0], [1] are column lane / 4 of the tile, [2], [3] the
// eighth behind it, at channels 2 (lane % 4) and + 1 of the group; `index` is its place in the map, `group` in all.
template <class Traits>
__device__ __forceinline__ void filter_rows(const StemBlockArgs<typename Traits::T>& args, int index, int group,
                                            Shared<typename Traits::T> filters, Shared<typename Traits::T> map,
                                            float (&sums)[Traits::kRows][4]) {
  using T = typename Traits::T;
  constexpr int kInRows = Traits::kRows + 2, kLine = Traits::kMapSide * Traits::kMapPixel;
  const int lane = ptx::lane(), quad = lane % 4, row = threadIdx.x / 32 * Traits::kRows;
  // Of a diagonal matrix, a thread has taps or zeros.
  uint32_t taps[Traits::kFilterQuads][4];
  const auto zeros = filters + args.channels * Traits::kFilterQuads * 8;
#pragma unroll
  for (int i = 0; i < Traits::kFilterQuads; i++) {
    const auto from = filters + ((group * Traits::kFilterQuads + i) * Traits::kGroup + lane / 4) * 8;
    const auto words = load<Pack<T, 8>>(quad == lane / 8 ? from : zeros);
#pragma unroll
    for (int v = 0; v < 4; v++) taps[i][v] = words.words[v];
  }
  float bias[2];
  unpack(load_constant<Pack<float, 2>>(args.b_filter + (group * Traits::kGroup + 2 * quad)), bias);
  const float start[4] = {bias[0], bias[1], bias[0], bias[1]};

  // Down the rows: of each, the pixels under the left and the middle taps, 16 products, and those under the right ones.
  const int column = lane % 16 + lane / 16, last = lane % 16 + 2;
  const auto left_from = map + map_offset<Traits>(row, column, index);
  const auto right_from = map + map_offset<Traits>(row, last, index);
#pragma unroll
  for (int i = 0; i < kInRows; i++) {
    uint32_t left[4], right[2];
    ldmatrix(left, left_from + i * kLine);
    ldmatrix(right, right_from + i * kLine);
#pragma unroll
    for (int ky = 0; ky < 3; ky++) {
      const int r = i - ky, place = 6 + ky;
      if (r < 0 || r >= Traits::kRows) continue;
      const uint32_t pair[2] = {taps[ky / 2][ky % 2 * 2], taps[ky / 2][ky % 2 * 2 + 1]};
      if (ky == 0)
        mma<T>(sums[r], left, pair, start);
      else
        mma<T>(sums[r], left, pair);
      mma<T>(sums[r], right, taps[place / 4][place % 4], sums[r]);
    }
  }
  activate_all<Traits::kSilu, T>(args.activation, sums);
}

// Adds what lies in the map of 8 channels of a warp's rows to `partial`, [warps][channels]; rows, then lanes, in order.
template <class Traits>
__device__ __forceinline__ void sum_rows(const StemBlockArgs<typename Traits::T>& args, int first_row, int first_column,
                                         int group, const float (&values)[Traits::kRows][4], Shared<float> partial) {
  const int lane = ptx::lane(), warp = threadIdx.x / 32;
  float totals[2] = {};
  const auto add = [&]<bool kWhole>() {
#pragma unroll
    for (int r = 0; r < Traits::kRows; r++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const bool inside = kWhole || (first_row + warp * Traits::kRows + r < args.out_height &&
                                       first_column + lane / 4 + i / 2 * 8 < args.out_width);
        totals[i % 2] += inside ? values[r][i] : 0.0f;
      }
    }
  };
  if (first_row + Traits::kTile <= args.out_height && first_column + Traits::kTile <= args.out_width)
    add.template operator()<true>();
  else
    add.template operator()<false>();
#pragma unroll
  for (int distance = 4; distance < 32; distance *= 2) {
    totals[0] += ptx::shuffle_xor(totals[0], distance);
    totals[1] += ptx::shuffle_xor(totals[1], distance);
  }
  if (lane < 4) store(partial + (warp * args.channels + group * Traits::kGroup + 2 * lane), pack<float>(totals));
}

// out += operand by the weights of 8 channels from `channel` on.
template <class Traits>
__device__ __forceinline__ void project(const StemBlockArgs<typename Traits::T>& args, int channel,
                                        const uint32_t (&operand)[Traits::kRows][2],
                                        float (&out)[Traits::kRows][Traits::kOutFragments][4]) {
  const int group = ptx::lane() / 4, quad = ptx::lane() % 4;
#pragma unroll
  for (int f = 0; f < Traits::kOutFragments; f++) {
    const int to = Traits::out_channel(f, group);
    const bool inside = to < args.out_channels;
    const auto from = args.w_project + ((inside ? to : 0) * args.channels + channel + 2 * quad);
    const uint32_t weights = inside ? load_constant<uint32_t>(from) : 0;
#pragma unroll
    for (int r = 0; r < Traits::kRows; r++) mma<typename Traits::T>(out[r][f], operand[r], weights, out[r][f]);
  }
}

template <class Traits>
__device__ __forceinline__ void start_out(const StemBlockArgs<typename Traits::T>& args,
                                          float (&out)[Traits::kRows][Traits::kOutFragments][4]) {
#pragma unroll
  for (int f = 0; f < Traits::kOutFragments; f++) {
    const int channel = Traits::out_channel(f, ptx::lane() % 4 * 2);
    float bias[2] = {};
    if (channel < args.out_channels) unpack(load_constant<Pack<float, 2>>(args.b_project + channel), bias);
#pragma unroll
    for (int r = 0; r < Traits::kRows; r++) {
#pragma unroll
      for (int i = 0; i < 4; i++) out[r][f][i] = bias[i % 2];
    }
  }
}

template <class Traits>
__device__ __forceinline__ void store_out(const StemBlockArgs<typename Traits::T>& args, int64_t image, int first_row,
                                          int first_column,
                                          const float (&out)[Traits::kRows][Traits::kOutFragments][4]) {
  constexpr int kJoined = Traits::kJoined;
  const int group = ptx::lane() / 4, quad = ptx::lane() % 4;
#pragma unroll
  for (int r = 0; r < Traits::kRows; r++) {
    const int row = first_row + threadIdx.x / 32 * Traits::kRows + r;
#pragma unroll
    for (int j = 0; j < 2; j++) {
      const int column = first_column + group + 8 * j;
      if (row >= args.out_height || column >= args.out_width) continue;
      const auto to = args.y + ((image * args.out_height + row) * args.out_width + column) * args.out_channels;
#pragma unroll
      for (int f = 0; f < Traits::kOutFragments; f += kJoined) {
        const int channel = Traits::out_channel(f, 2 * quad);
        float values[2 * kJoined];
#pragma unroll
        for (int v = 0; v < 2 * kJoined; v++) values[v] = out[r][f + v / 2][2 * j + v % 2];
        if (channel < args.out_channels) store(to + channel, pack<typename Traits::T>(values));
      }
    }
  }
}

template <class Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kBlocks)
    stem_block_kernel(const __grid_constant__ StemBlockArgs<typename Traits::T> args) {
  using T = typename Traits::T;
  const auto patch = shared_memory<T>(), map = shared_memory<T>(Traits::kPatchBytes);
  const auto weights = shared_memory<T>(Traits::kWeightsAt);
  const auto filters = shared_memory<T>(Traits::filters_at(args.channels));
  const auto partial = shared_memory<float>(Traits::partial_at(args.channels));
  const int64_t image = blockIdx.x / args.tiles;
  const int tile = static_cast<int>(blockIdx.x - image * args.tiles);
  const int first_row = tile / args.tiles_x * Traits::kTile, first_column = tile % args.tiles_x * Traits::kTile;

  stage_weights<Traits>(args, weights, filters);
  ptx::grid_dependency_launch();
  ptx::grid_dependency_wait();
  with_pixel<T>(args.image.dtype, [&]<class Pixel>() {
    stage_pixels<Traits, Pixel>(args.image, image, (first_row - 1) * Traits::kStride - args.top,
                                (first_column - 1) * Traits::kStride - args.left, patch);
  });

  float out[Traits::kRows][Traits::kSums ? 1 : Traits::kOutFragments][4];
  if constexpr (!Traits::kSums) start_out<Traits>(args, out);
  const int all_groups = args.channels / Traits::kGroup;
  for (int first_group = 0; first_group < all_groups; first_group += args.chunk_groups) {
    const int left = all_groups - first_group, groups = left < args.chunk_groups ? left : args.chunk_groups;
    ptx::sync_threads();  // the patch is there, and all have left the map of the chunk before
    make_map<Traits>(args, first_row, first_column, first_group, groups, patch, weights, map);
    ptx::sync_threads();  // the map is there
#pragma unroll 1
    for (int index = 0; index < groups; index++) {
      const int group = first_group + index;
      float values[Traits::kRows][4];
      filter_rows<Traits>(args, index, group, filters, map, values);
      if constexpr (Traits::kSums) {
        sum_rows<Traits>(args, first_row, first_column, group, values, partial);
      } else {
        const int channel = group * Traits::kGroup;
        float gate[2] = {1.0f, 1.0f};
        if (args.gate) {
          unpack(load<Pack<float, 2>>(args.gate + (image * args.channels + channel + ptx::lane() % 4 * 2)), gate);
        }
        uint32_t operand[Traits::kRows][2];
#pragma unroll
        for (int r = 0; r < Traits::kRows; r++) {
          operand[r][0] = pack_word<T>(values[r][0] * gate[0], values[r][1] * gate[1]);
          operand[r][1] = pack_word<T>(values[r][2] * gate[0], values[r][3] * gate[1]);
        }
        project<Traits>(args, channel, operand, out);
      }
    }
  }
  if constexpr (Traits::kSums) {
    ptx::sync_threads();
    for (int channel = threadIdx.x; channel < args.channels; channel += Traits::kThreads) {
      float sum = 0.0f;
#pragma unroll
      for (int warp = 0; warp < Traits::kWarps; warp++) sum += load<float>(partial + (warp * args.channels + channel));
      store(args.sums + ((image * args.tiles + tile) * args.channels + channel), sum);
    }
  } else {
    store_out<Traits>(args, image, first_row, first_column, out);
  }
}

}  // namespace effnet_fast::cuda
