// depthwise_conv, depthwise_conv_pool and depthwise_conv_gate: one k x k filter per channel, activation, the sums
// that squeeze-excite needs and, in the last block of an image, squeeze-excite itself. NHWC, one pass over memory.
//
// A block takes up to 128 bytes of channels and a strip of columns, and walks down the rows:
//
//   - cp.async fills a ring of input rows in shared memory, 16 bytes a copy. Columns outside the image are zeros
//     that are written once; rows outside are never touched. So the inner loop has no borders.
//   - A thread computes 4 adjacent columns of 2 channels (4 where k = 3, whose weights take fewer registers). It
//     keeps the ceil(k / stride) output rows under the current input row as accumulators, so that each input value
//     is read and converted once for all outputs above it and 4 columns share it. Accumulators are not moved: the
//     loop over rows is unrolled until the same register means the same row again.
//   - Weights stay in registers up to k = 5 and are read from shared memory at k = 7.
//
// The inner loop has to be short: at stride 1 an H200 moves the 4 bytes of an output in 27 issue slots, and k = 5 takes
// 36 of them, 25 of these multiply-adds; k = 3 takes 17.
#pragma once

#include "activation.cuh"
#include "depthwise_conv_gate.cuh"

namespace effnet_fast::cuda {

// kSilu_: SiLU on halved weights, for 16-bit storage; otherwise Args::activation.
template <class T, int kKernel_, int kStride_, bool kSilu_>
struct DepthwiseConvTraits {
  using Storage = T;
  static constexpr int kKernel = kKernel_, kStride = kStride_;
  static constexpr bool kSilu = kSilu_;

  // Of a thread.
  static constexpr int kChannels = kKernel == 3 ? 4 : 2;
  static constexpr int kColumns = 4;
  static constexpr int kWindow = (kColumns - 1) * kStride + kKernel;  // input columns
  static constexpr int kLive = (kKernel + kStride - 1) / kStride;     // output rows under one input row
  static constexpr bool kWeightsInRegisters = kKernel <= 5;
  static constexpr int kRegisterWeights = kWeightsInRegisters ? kKernel * kKernel : 1;

  // Of a block.
  static constexpr int kPixelBytes = 128;
  static constexpr int kMaxBlockChannels = kPixelBytes / static_cast<int>(sizeof(T));
  static constexpr int kMaxGroups = 8;  // of kColumns columns
  static constexpr int kMaxThreads = kMaxBlockChannels / kChannels * kMaxGroups;
  // Of a thread at most: 16 warps on a multiprocessor of 64 Ki registers.
  static constexpr int kRegisters = kKernel <= 5 ? 128 : 160;

  // A stage is the rows between two barriers, and a period the rows after which accumulators repeat.
  static constexpr int kStageRows = kStride == 1 ? kKernel : kStride;
  static constexpr int kStages = kStride == 1 ? 2 : 3;
  static constexpr int kRingRows = kStageRows * kStages;
  static constexpr int kPeriod = kStride * kLive;
  static constexpr int kPeriodStages = kPeriod / kStageRows;

  // Columns of the input under `groups` groups.
  __host__ __device__ static constexpr int staged_columns(int groups) {
    return (groups * kColumns - 1) * kStride + kKernel;
  }
  // In bytes: the ring, the sums of a block by group, the weights in float32 (where not in registers).
  __host__ __device__ static constexpr int ring_bytes(int groups) {
    return kRingRows * staged_columns(groups) * kPixelBytes;
  }
  __host__ __device__ static constexpr int sums_bytes(int groups) {
    return groups * kMaxBlockChannels * static_cast<int>(sizeof(float));
  }
  __host__ __device__ static constexpr int weight_bytes() {
    return kWeightsInRegisters ? 0 : kKernel * kKernel * kMaxBlockChannels * static_cast<int>(sizeof(float));
  }
  __host__ __device__ static constexpr int shared_bytes(int groups) {
    return ring_bytes(groups) + sums_bytes(groups) + weight_bytes();
  }

  __host__ __device__ static constexpr int next_slot(int slot) {
    return kStages == 2 ? slot ^ 1 : slot + 1 < kStages ? slot + 1 : 0;
  }

  // Whether row `row` of a period is under kernel row `ky` of an output row, and which accumulators those are.
  __host__ __device__ static constexpr bool meets(int row, int ky) { return (row - ky + kPeriod) % kStride == 0; }
  __host__ __device__ static constexpr int accumulator(int row, int ky) {
    return (row - ky + kPeriod) / kStride % kLive;
  }

  static_assert(kStride == 1 || kStride == 2);
  static_assert(kKernel % 2 == 1 && kKernel <= kPeriod, "a period has every row of a kernel");
  static_assert(kPeriod % kStageRows == 0);
  static_assert(!kSilu || sizeof(T) == 2);
};

template <class T>
struct DepthwiseConvArgs {
  Global<const T> x;       // [images, height, width, channels]
  Global<const T> weight;  // [kernel * kernel, channels]
  Global<const float> bias;
  Global<T> y;         // [images, out_height, out_width, channels]
  Global<float> sums;  // [images, tile_rows, tile_columns, channels] or null
  int images, channels, height, width, out_height, out_width;
  int top, left;  // top and bottom padding are less than the kernel: every window has a row of the image
  int tile_rows, tile_columns;
  Activation activation;

  // The work of a block: channels, groups of columns, output rows, and images one after the other.
  int block_channels, groups, segment_rows, block_images;
  int strips;                      // of a row
  int rows;                        // of the input under a segment
  int end_row;                     // of the input, behind the last one under the last output row
  int64_t next_image;              // elements of x from the row behind the last stage to the next image
  int staged;                      // columns
  int copy_columns;                // that the threads copy at a time
  int copy_step, in_row, out_row;  // elements: from copy to copy, from row to row

  SqueezeExciteTail tail;  // with tickets: the last block of an image computes its gates
};

__device__ __forceinline__ int smaller(int a, int b) { return a < b ? a : b; }

// Activations in front of 16-bit storage other than SiLU are a clamp, or hardswish.
template <class Traits, int kRows, int kColumns>
__device__ __forceinline__ void activate_row(Activation activation, float low, float high,
                                             float (&values)[kRows][kColumns]) {
  const auto each = [&](auto function) {
#pragma unroll
    for (int r = 0; r < kRows; r++) {
#pragma unroll
      for (int c = 0; c < kColumns; c++) values[r][c] = function(values[r][c]);
    }
  };
  using T = typename Traits::Storage;
  if constexpr (Traits::kSilu) {
    each([](float v) { return activate<Activation::kSilu, T>(v); });
  } else if (activation == Activation::kHardswish) {
    each([](float v) { return activate<Activation::kHardswish, T>(v); });
  } else if (sizeof(T) == 4 && activation == Activation::kSilu) {
    each([](float v) { return activate<Activation::kSilu, float>(v); });
  } else {
    each([&](float v) { return clamp(v, low, high); });
  }
}

// Adds an input row, the `in_period`-th of a period, to the output rows above it.
template <class Traits>
__device__ __forceinline__ void add_row(int in_period, Shared<typename Traits::Storage> from,
                                        Shared<float> shared_weights,
                                        const float (&weights)[Traits::kRegisterWeights][Traits::kChannels],
                                        const float (&bias)[Traits::kChannels],
                                        float (&sums)[Traits::kLive][Traits::kColumns][Traits::kChannels]) {
  constexpr int kKernel = Traits::kKernel, kStride = Traits::kStride, kChannels = Traits::kChannels;
  const auto add_tap = [&](int ky, int kx, int p, const float (&value)[kChannels], const float (&weight)[kChannels]) {
    float (&sum)[kChannels] = sums[Traits::accumulator(in_period, ky)][p];
#pragma unroll
    for (int c = 0; c < kChannels; c++) sum[c] = ptx::fma(value[c], weight[c], ky == 0 && kx == 0 ? bias[c] : sum[c]);
  };
  const auto load_value = [&](int column, float (&value)[kChannels]) {
    unpack(load<Pack<typename Traits::Storage, kChannels>>(from + column * Traits::kMaxBlockChannels), value);
  };
  if constexpr (Traits::kWeightsInRegisters) {
#pragma unroll
    for (int column = 0; column < Traits::kWindow; column++) {
      float value[kChannels];
      load_value(column, value);
#pragma unroll
      for (int p = 0; p < Traits::kColumns; p++) {
        const int kx = column - p * kStride;
        if (kx < 0 || kx >= kKernel) continue;
#pragma unroll
        for (int ky = 0; ky < kKernel; ky++) {
          if (Traits::meets(in_period, ky)) add_tap(ky, kx, p, value, weights[ky * kKernel + kx]);
        }
      }
    }
  } else {
    float values[Traits::kWindow][kChannels];
#pragma unroll
    for (int column = 0; column < Traits::kWindow; column++) load_value(column, values[column]);
#pragma unroll
    for (int ky = 0; ky < kKernel; ky++) {
      if (!Traits::meets(in_period, ky)) continue;
#pragma unroll
      for (int kx = 0; kx < kKernel; kx++) {
        float weight[kChannels];
        unpack(load<Pack<float, kChannels>>(shared_weights + (ky * kKernel + kx) * Traits::kMaxBlockChannels), weight);
#pragma unroll
        for (int p = 0; p < Traits::kColumns; p++) add_tap(ky, kx, p, values[p * kStride + kx], weight);
      }
    }
  }
}

template <class Traits>
__global__ void __launch_bounds__(Traits::kMaxThreads, 65536 / Traits::kRegisters / Traits::kMaxThreads)
    depthwise_conv_kernel(const __grid_constant__ DepthwiseConvArgs<typename Traits::Storage> args) {
  using T = typename Traits::Storage;
  constexpr int kKernel = Traits::kKernel, kStride = Traits::kStride;
  constexpr int kChannels = Traits::kChannels, kColumns = Traits::kColumns;
  constexpr int kStageRows = Traits::kStageRows, kStages = Traits::kStages;
  constexpr int kPixel = Traits::kMaxBlockChannels;  // elements of a pixel in the ring
  using Values = Pack<T, kChannels>;

  // Which block: x is its channels, y its strip and segment, z its images.
  const int strip = blockIdx.y % args.strips, segment = blockIdx.y / args.strips;
  const int first_image = blockIdx.z * args.block_images;
  const int end_image = smaller(first_image + args.block_images, args.images);
  const int first_channel = blockIdx.x * args.block_channels;
  const int channels = smaller(args.block_channels, args.channels - first_channel);

  // Input rows from `origin_row` on are under the segment. The first ones may be above the image: whole strides of them
  // are skipped, so that rows go from `start_row` (-1 at the least, at stride 2) to `stop_row`.
  const int first_row = segment * args.segment_rows;
  const int origin_row = first_row * kStride - args.top;
  const int start_row = origin_row < 0 ? -(-origin_row % kStride) : origin_row;
  const int stop_row = smaller(origin_row + args.rows, args.end_row);

  const int row_elements = args.staged * kPixel;
  const auto ring = shared_memory<T>();  // [kRingRows][staged][kPixel]
  const auto group_sums = shared_memory<float>(Traits::ring_bytes(args.groups));
  const auto shared_weights = shared_memory<float>(Traits::ring_bytes(args.groups) + Traits::sums_bytes(args.groups));

  // As a copier, a thread has 16 bytes of every copy_columns-th staged column: `copies` of them lie in the image, from
  // staged column `first_copy` on, and the others are zeroed now.
  const int chunks = args.block_channels / kVector<T>;
  const int copy_channel = threadIdx.x % chunks * kVector<T>, copy_column = threadIdx.x / chunks;
  const bool copier = copy_column < args.copy_columns && copy_channel < channels;
  const int origin_column = strip * args.groups * kColumns * kStride - args.left;
  int copies = 0, first_copy = 0;
  for (int column = copy_column; copier && column < args.staged; column += args.copy_columns) {
    if (origin_column + column >= 0 && origin_column + column < args.width) {
      if (copies++ == 0) first_copy = column;
    } else {
      for (int row = 0; row < Traits::kRingRows; row++) {
        store(ring + (row * row_elements + column * kPixel + copy_channel), Pack<T, kVector<T>>{});
      }
    }
  }

  // Stages are loaded in one stream over the images of the block.
  int load_image = first_image, load_row = start_row;
  auto load_from = args.x + (static_cast<int64_t>(first_image) * args.height + start_row) * args.in_row +
                   ((origin_column + first_copy) * args.channels + first_channel + copy_channel);
  const auto load_to = ring + (first_copy * kPixel + copy_channel);
  const auto load_stage = [&](int slot) {
    if (load_image < end_image) {
      auto column_from = load_from;
      auto column_to = load_to + slot * kStageRows * row_elements;
#pragma unroll 1
      for (int i = 0; i < copies; i++) {
        auto from = column_from;
        auto to = column_to;
#pragma unroll
        for (int r = 0; r < kStageRows; r++) {
          cp_async<16>(to, from, (kStride == 1 || r >= -load_row) && r < args.height - load_row);
          from = from + args.in_row;
          to = to + row_elements;
        }
        column_from = column_from + args.copy_step;
        column_to = column_to + args.copy_columns * kPixel;
      }
      load_row += kStageRows;
      load_from = load_from + kStageRows * args.in_row;
      if (load_row >= stop_row) {
        load_from = load_from + args.next_image;
        load_row = start_row;
        load_image++;
      }
    }
    ptx::cp_async_commit();
  };

  // As a computer, a thread has kChannels channels of kColumns columns; groups beyond the map are idle.
  const unsigned lanes = args.block_channels / kChannels;
  const int group = threadIdx.x / lanes, my_channel = threadIdx.x % lanes * kChannels;
  const int out_column = (strip * args.groups + group) * kColumns;
  const int valid_columns = args.out_width - out_column;
  const bool loader = group < args.groups && my_channel < channels, active = loader && valid_columns > 0;
  const int channel = first_channel + my_channel;
  float weights[Traits::kRegisterWeights][kChannels] = {};
  float bias[kChannels] = {};
  if (loader) {
    unpack(load_constant<Pack<float, kChannels>>(args.bias + channel), bias);
    if constexpr (Traits::kWeightsInRegisters) {
#pragma unroll
      for (int i = 0; i < kKernel * kKernel; i++) {
        unpack(load_constant<Values>(args.weight + (i * args.channels + channel)), weights[i]);
      }
    } else {
      for (int i = group; i < kKernel * kKernel; i += args.groups) {
        float tap[kChannels];
        unpack(load_constant<Values>(args.weight + (i * args.channels + channel)), tap);
        store(shared_weights + (i * kPixel + my_channel), pack<float>(tap));
      }
    }
  }
  const float infinity = __builtin_inff();
  const float low = args.activation == Activation::kIdentity ? -infinity : 0.0f;
  const float high = args.activation == Activation::kRelu6 ? 6.0f : infinity;

  ptx::grid_dependency_launch();
  ptx::grid_dependency_wait();
#pragma unroll
  for (int i = 0; i < kStages - 1; i++) load_stage(i);

  const auto window = ring + (group * kColumns * kStride * kPixel + my_channel);
  // With several images a block has all their rows, and so passes from the last one to the next image's first.
  auto y = args.y + ((static_cast<int64_t>(first_image) * args.out_height + first_row) * args.out_row +
                     (out_column * args.channels + channel));
  int slot = 0, free_slot = kStages - 1;
  for (int image = first_image; image < end_image; image++) {
    float totals[kChannels] = {};
    // Output rows that begin above the image find the bias in their accumulators, others begin with it.
    float sums[Traits::kLive][kColumns][kChannels];
#pragma unroll
    for (int i = 0; i < Traits::kLive; i++) {
#pragma unroll
      for (int p = 0; p < kColumns; p++) {
#pragma unroll
        for (int c = 0; c < kChannels; c++) sums[i][p][c] = bias[c];
      }
    }
    for (int row = start_row; row < stop_row;) {
#pragma unroll
      for (int s = 0; s < Traits::kPeriodStages; s++) {
        if (s > 0 && row >= stop_row) break;
        ptx::cp_async_wait<kStages - 2>();
        ptx::sync_threads();
        load_stage(free_slot);  // which everybody has left
        auto from = window + slot * kStageRows * row_elements;
        free_slot = slot;
        slot = Traits::next_slot(slot);
        // The rows of this stage that are in the image, and those that complete an output row.
        const int in_first = -row, in_end = args.height - row;
        const int out_first = origin_row + kKernel - 1 - row, out_end = stop_row - row;
        row += kStageRows;
        if (!active) continue;
#pragma unroll
        for (int r = 0; r < kStageRows; r++) {
          const int in_period = s * kStageRows + r;
          if ((kStride == 1 || r >= in_first) && r < in_end) {
            add_row<Traits>(in_period, from, shared_weights + my_channel, weights, bias, sums);
          }
          from = from + row_elements;
          if (!Traits::meets(in_period, kKernel - 1) || r < out_first || r >= out_end) continue;
          // In place, which keeps the compiler from moving the activation into the branches below.
          float (&out)[kColumns][kChannels] = sums[Traits::accumulator(in_period, kKernel - 1)];
          activate_row<Traits>(args.activation, low, high, out);
          Values packs[kColumns];
#pragma unroll
          for (int p = 0; p < kColumns; p++) packs[p] = pack<T>(out[p]);
          auto to = y;
#pragma unroll
          for (int p = 0; p < kColumns; p++) {
            if (p == 0 || p < valid_columns) {
              store(to, packs[p]);
#pragma unroll
              for (int c = 0; c < kChannels; c++) totals[c] += out[p][c];
            }
            to = to + args.channels;
          }
          y = y + args.out_row;
        }
      }
    }

    if (!args.sums) continue;
    if (threadIdx.x < args.groups * lanes) store(group_sums + threadIdx.x * kChannels, pack<float>(totals));
    ptx::sync_threads();
    // The block has a tile of the contract, of which there are no fewer; it also clears those that no block has.
    // Loops are not unrolled, here and in the tail: what that prepares would stay in registers all along.
    const int tiles = args.tile_rows * args.tile_columns;
    for (int c = threadIdx.x; c < channels; c += blockDim.x) {
      float total = 0.0f;
#pragma unroll 1
      for (int g = 0; g < args.groups; g++) total += load<float>(group_sums + (g * args.block_channels + c));
      for (int tile = blockIdx.y; tile < tiles; tile += gridDim.y) {
        store(args.sums + ((static_cast<int64_t>(image) * tiles + tile) * args.channels + (first_channel + c)), total);
        total = 0.0f;
      }
    }
    if (args.tail.tickets) {
      squeeze_excite_tail(args.tail, args.sums, image, gridDim.x * gridDim.y, tiles, args.channels,
                          shared_memory<float>(Traits::shared_bytes(args.groups)));
    }
  }
}

}  // namespace effnet_fast::cuda
