// expand_depthwise: the depthwise convolution of a chunk of expanded channels that lies in shared memory.
//
// On tensor cores: a tap of 8 channels is a product with a diagonal matrix, so 7 of 8 multiply-adds are with zero, and
// still an output takes 9 issue slots (3 x 3; 13 at 5 x 5) where multiply-adds take 19 (39): ldmatrix delivers 16
// pixels of 8 channels in one instruction, unconverted, and two taps of a row share an mma of 16 x 8 x 16.
#pragma once

#include "expand_depthwise_tile.cuh"

namespace effnet_fast::cuda {

// The words of a diagonal matrix are zero but in the lanes that hold its diagonal. Pairs of taps of a row come first
// and the last taps of all rows behind them: an mma of 16 wants its two words in an even register and the next one.
template <class Traits>
__device__ __forceinline__ void load_taps(Global<const uint32_t> taps, int group,
                                          uint32_t (&words)[(Traits::kKernel * Traits::kKernel + 3) / 4 * 4]) {
  constexpr int kWords = (Traits::kKernel * Traits::kKernel + 3) / 4 * 4;
  const int lane = ptx::lane();
#pragma unroll
  for (int i = 0; i < kWords; i++) words[i] = 0;
  if (lane % 4 != lane / 8) return;
  const auto from = taps + (static_cast<int64_t>(group) * 8 * kWords + lane / 4 * 4);
#pragma unroll
  for (int i = 0; i < kWords / 4; i++) {
    const auto four = load_constant<Pack<typename Traits::T, 8>>(from + i * 8 * 4);
#pragma unroll
    for (int j = 0; j < 4; j++) words[4 * i + j] = four.words[j];
  }
}

// The sums over the 8 columns of a warp of 4 channels a lane: each step adds two lanes and leaves a lane half of the
// channels, so 4 shuffles do. In lanes 0 to 15: channel lane / 4 % 4 of the four of lane % 4.
__device__ __forceinline__ float sum_columns(const float (&totals)[4], int lane) {
  const bool second = lane & 4, upper = lane & 8;
  float low = second ? totals[1] : totals[0], high = second ? totals[3] : totals[2];
  low += ptx::shuffle_xor(second ? totals[0] : totals[1], 4);
  high += ptx::shuffle_xor(second ? totals[2] : totals[3], 4);
  const float passed = upper ? low : high;
  float total = upper ? high : low;
  total += ptx::shuffle_xor(passed, 8);
  return total + ptx::shuffle_xor(total, 16);
}

// The weights of a half of a warp's 16 channels, for this lane.
template <class Traits>
struct ExpandDepthwiseTaps {
  uint32_t words[(Traits::kKernel * Traits::kKernel + 3) / 4 * 4];
  Pack<float, 2> bias;

  __device__ __forceinline__ void load(const ExpandDepthwiseArgs<typename Traits::T>& args, int first_channel,
                                       int half) {
    load_taps<Traits>(args.taps, first_channel / 8 + half, words);
    const int channel = first_channel + ptx::lane() % 4 * 4 + 2 * half;
    bias = Pack<float, 2>{};
    if (channel < args.channels) bias = load_constant<Pack<float, 2>>(args.bias + channel);
  }
};
// 3 x 3 taps of both halves fit the registers and are loaded before the barrier behind the expansion, which hides the
// way to the L2 cache; 5 x 5 ones take 56, and come when they are needed.
template <class Traits>
inline constexpr bool kKeepsTaps = Traits::kKernel == 3;

// The items of this warp: 16 channels of 8 columns in two bands of kRows rows. kWhole: every row is inside the output.
// `pool` gets [places][kChunk]: the sums of each item.
template <class Traits, bool kWhole>
__device__ __forceinline__ void filter_places(const ExpandDepthwiseArgs<typename Traits::T>& args,
                                              const ExpandDepthwiseTile<typename Traits::T>& tile,
                                              Shared<typename Traits::T> expanded, Shared<float> pool,
                                              int first_channel, ExpandDepthwiseTaps<Traits> (&kept_taps)[2]) {
  using T = typename Traits::T;
  constexpr int kKernel = Traits::kKernel, kStride = Traits::kStride, kRows = Traits::kRows;
  constexpr int kTapPairs = kKernel / 2, kStep = Traits::kWarps / Traits::kPairs;
  const int lane = ptx::lane(), line = args.pitch * Traits::kPitch, out_line = args.out_width * args.channels;
  const int channel = first_channel + lane % 4 * 4;
  // An mma has 8 columns of a row of the first band, and of the same of the second. This lane says where a pixel of one
  // tap (lanes 0 to 15) or of the next one is, and gets outputs of column lane / 4, channels 4 (lane % 4) to + 3.
  const int my_position =
      lane % 16 / 8 * kRows * kStride * args.pitch + lane % 8 + lane / 16 * (kStride == 1 ? 1 : args.odd);
#pragma unroll 1
  for (int place = threadIdx.x / 32 / Traits::kPairs; place < args.places; place += kStep) {
    const int band = place * args.by_groups >> 16, group = place - band * args.groups;
    const int first_row = band * 2 * kRows, column = group * 8 + lane / 4;
    const bool mine = column < tile.columns && channel < args.channels;
    const int rows[2] = {tile.rows - first_row, tile.rows - first_row - kRows};
    uint32_t kept[kRows][2];  // the first two channels, until the other two are there
    float totals[4] = {};
#pragma unroll
    for (int half = 0; half < 2; half++) {
      if constexpr (!kKeepsTaps<Traits>) kept_taps[half].load(args, first_channel, half);
      const auto& [taps, bias] = kept_taps[half];
      const float start[4] = {bias.words[0], bias.words[1], bias.words[0], bias.words[1]};
      float sums[kRows][1][4];
      auto from = expanded + ((my_position + first_row * kStride * args.pitch + group * 8) * Traits::kPitch + half * 8);
      auto to = tile.y + (first_row * out_line + column * args.channels + channel);
#pragma unroll
      for (int y = 0; y < (kRows - 1) * kStride + kKernel; y++) {
        uint32_t pairs[kTapPairs][4], last[2];
#pragma unroll
        for (int i = 0; i < kTapPairs; i++) ldmatrix(pairs[i], from + i * (2 / kStride) * Traits::kPitch);
        ldmatrix(last, from + (kKernel - 1) / kStride * Traits::kPitch);
        from = from + line;
#pragma unroll
        for (int ky = 0; ky < kKernel; ky++) {
          const int row = (y - ky) / kStride;
          if (y < ky || (y - ky) % kStride != 0 || row >= kRows) continue;
          float (&sum)[4] = sums[row][0];
#pragma unroll
          for (int i = 0; i < kTapPairs; i++) {
            const uint32_t weights[2] = {taps[ky * (kKernel - 1) + 2 * i], taps[ky * (kKernel - 1) + 2 * i + 1]};
            if (ky == 0 && i == 0)
              mma<T>(sum, pairs[i], weights, start);
            else
              mma<T>(sum, pairs[i], weights, sum);
          }
          mma<T>(sum, last, taps[kKernel * (kKernel - 1) + ky], sum);
          if (ky < kKernel - 1) continue;
          activate_all<Traits::kSilu, T>(args.activation, sums[row]);
#pragma unroll
          for (int b = 0; b < 2; b++) {
            const uint32_t word = pack_word<T>(sum[2 * b], sum[2 * b + 1]);
            if (half == 0) kept[row][b] = word;
            if (!kWhole && row >= rows[b]) continue;
            totals[2 * half] += sum[2 * b];
            totals[2 * half + 1] += sum[2 * b + 1];
            if (half == 1 && mine) store(to + b * kRows * out_line, Pack<T, 4>{kept[row][b], word});
          }
          if (half == 1) to = to + out_line;
        }
      }
    }
    if (!args.sums) continue;
#pragma unroll
    for (int c = 0; c < 4; c++) totals[c] = mine ? totals[c] : 0.0f;
    const float total = sum_columns(totals, lane);
    const int in_chunk = first_channel % Traits::kChunk + lane % 4 * 4 + lane / 4;
    if (lane < 16) store(pool + (place * Traits::kChunk + in_chunk), total);
  }
}

// Behind the expansion, which other warps may still be at.
template <class Traits>
__device__ __forceinline__ void filter_by_tensor_cores(const ExpandDepthwiseArgs<typename Traits::T>& args,
                                                       const ExpandDepthwiseTile<typename Traits::T>& tile,
                                                       Shared<typename Traits::T> expanded, Shared<float> pool,
                                                       int chunk) {
  const int pair = threadIdx.x / 32 % Traits::kPairs;
  const int first_channel = chunk * Traits::kChunk + pair * 16;
  ExpandDepthwiseTaps<Traits> taps[2];
  if constexpr (kKeepsTaps<Traits>) {
#pragma unroll
    for (int half = 0; half < 2; half++) taps[half].load(args, first_channel, half);
  }
  ptx::sync_threads();
  if (first_channel >= args.channels) return;
  const auto pixels = expanded + pair * 16;
  if (tile.rows == args.places / args.groups * 2 * Traits::kRows)
    filter_places<Traits, true>(args, tile, pixels, pool, first_channel, taps);
  else
    filter_places<Traits, false>(args, tile, pixels, pool, first_channel, taps);
}

// By multiply-adds, of a thread's two channels in strips of 2 rows by 4 columns; `pool` gets [kStrips][kChunk]. An
// infinity or NaN stays in its channel here, where a product with a diagonal matrix spreads it over the 8 of a group.
template <class Traits>
__device__ __forceinline__ void filter_by_multiply_adds(const ExpandDepthwiseArgs<typename Traits::T>& args,
                                                        const ExpandDepthwiseTile<typename Traits::T>& tile,
                                                        Shared<typename Traits::T> expanded, Shared<float> pool,
                                                        int chunk) {
  using T = typename Traits::T;
  constexpr int kKernel = Traits::kKernel, kStride = Traits::kStride;
  constexpr int kStripRows = Traits::kStripRows, kColumns = Traits::kStripColumns;
  constexpr int kWords = Traits::kChunk / 2;
  const int word = threadIdx.x % kWords;
  // Channels of a pair lie as the two mma of the expansion leave them: see pack_expand.
  const int in_chunk = word / 8 * 16 + word % 4 * 4 + word / 4 % 2 * 2;
  const int channel = chunk * Traits::kChunk + in_chunk;
  float totals[2] = {};
  ptx::sync_threads();
  if (channel < args.channels) {
    float taps[kKernel * kKernel][2];
#pragma unroll
    for (int i = 0; i < kKernel * kKernel; i++) {
      unpack(load_constant<Pack<T, 2>>(args.weight + (i * args.channels + channel)), taps[i]);
    }
    float bias[2];
    unpack(load_constant<Pack<float, 2>>(args.bias + channel), bias);
    const int across = args.groups * 8 / kColumns;
    const int strips = args.places / args.groups * (2 * Traits::kRows / kStripRows) * across;
#pragma unroll 1
    for (int strip = threadIdx.x / kWords; strip < strips; strip += Traits::kStrips) {
      const int first_row = strip / across * kStripRows, first_column = strip % across * kColumns;
      const auto from = expanded + ((first_row * kStride * args.pitch + first_column) * Traits::kPitch + 2 * word);
      float sums[2 * kStripRows][4];  // of two columns each
#pragma unroll
      for (int i = 0; i < 8 * kStripRows; i++) sums[i / 4][i % 4] = bias[i % 2];
#pragma unroll
      for (int y = 0; y < (kStripRows - 1) * kStride + kKernel; y++) {
#pragma unroll
        for (int x = 0; x < (kColumns - 1) * kStride + kKernel; x++) {
          const int place = kStride == 1 ? x : x % 2 * args.odd + x / 2;
          float value[2];
          unpack(load<Pack<T, 2>>(from + (y * args.pitch + place) * Traits::kPitch), value);
#pragma unroll
          for (int ky = 0; ky < kKernel; ky++) {
#pragma unroll
            for (int kx = 0; kx < kKernel; kx++) {
              const int row = (y - ky) / kStride, column = (x - kx) / kStride;
              if (y < ky || (y - ky) % kStride != 0 || row >= kStripRows) continue;
              if (x < kx || (x - kx) % kStride != 0 || column >= kColumns) continue;
              float (&sum)[4] = sums[2 * row + column / 2];
#pragma unroll
              for (int c = 0; c < 2; c++) {
                float& s = sum[column % 2 * 2 + c];
                s = ptx::fma(value[c], taps[ky * kKernel + kx][c], s);
              }
            }
          }
        }
      }
      activate_all<Traits::kSilu, T>(args.activation, sums);
#pragma unroll
      for (int i = 0; i < kStripRows * kColumns; i++) {
        const int row = first_row + i / kColumns, column = first_column + i % kColumns;
        if (row >= tile.rows || column >= tile.columns) continue;
        const float two[2] = {sums[i / 2][i % 2 * 2], sums[i / 2][i % 2 * 2 + 1]};
        store(tile.y + ((row * args.out_width + column) * args.channels + channel), pack<T>(two));
        totals[0] += two[0];
        totals[1] += two[1];
      }
    }
  }
  if (args.sums) store(pool + (threadIdx.x / kWords * Traits::kChunk + in_chunk), pack<float>(totals));
}

}  // namespace effnet_fast::cuda
