// stem_conv: y = activation(conv(normalised image) + bias), from bytes or floats in any memory layout. A pixel p
// becomes (p unit - mean) / std, rounded once to the storage type; outside the image it is 0.
//
// Two kernels: on tensor cores for what every EfficientNet begins with (3 x 3 taps of 3 channels at stride 2, 16 bits),
// and a general one. The first writes 64 bytes a pixel (32 channels) for 12 that it reads, which takes an H200 as long
// as 16 issue slots of a warp; it needs 13 at a large batch of 224 x 224 bytes, counted in its sm_90 code.
#pragma once

#include "activation.cuh"

namespace effnet_fast::cuda {

struct StemImage {
  const void* pixels;
  DType dtype;
  int64_t stride_n, stride_c, stride_h, stride_w;  // in elements
  int channels, height, width;
  float unit;                // 1 / 255 for bytes
  Global<const float> mean;  // [channels] or null
  Global<const float> std;   // [channels] or null
};

// How one channel's pixels become values. The mean is subtracted before the scaling: where a pixel and the mean nearly
// cancel, p * scale + shift would lose what is left.
struct Normalisation {
  float unit, mean, inverse_std;

  __device__ __forceinline__ Normalisation(const StemImage& image, int channel)
      : unit(image.unit),
        mean(image.mean ? load<float>(image.mean + channel) : 0.0f),
        inverse_std(image.std ? 1.0f / load<float>(image.std + channel) : 1.0f) {}
  __device__ __forceinline__ float operator()(float pixel) const { return ptx::fma(pixel, unit, -mean) * inverse_std; }
};

template <class Pixel>
__device__ __forceinline__ float pixel_value(Pixel pixel) {
  if constexpr (sizeof(Pixel) == 1)
    return static_cast<float>(pixel);
  else
    return to_float(pixel);
}

// Calls function.template operator()<Pixel>(): uint8_t, float, or the storage type.
template <class T, class Function>
__device__ __forceinline__ void with_pixel(DType dtype, Function&& function) {
  if (dtype == DType::kUInt8)
    function.template operator()<uint8_t>();
  else if (dtype == DType::kFloat32)
    function.template operator()<float>();
  else
    function.template operator()<T>();
}

// A block makes 16 columns of some rows of the output, for all channels. It stages the values behind them once, as
// [rows][columns][channels]; then the 9 values of a kernel row are neighbours, so that each 32-bit operand of an mma
// is one load from there: no im2col. K is 3 kernel rows of 5 words (the tenth value is masked) and one word of zeros.
template <class T_, bool kSilu_>
struct StemConvTraits {
  using T = T_;
  static constexpr bool kSilu = kSilu_;
  static constexpr int kKernel = 3, kStride = 2, kInChannels = 3;
  static constexpr int kColumns = 16;   // of a block: the rows of an mma
  static constexpr int kChannels = 32;  // at a time; 8 neighbours a thread, so that it stores 16 bytes
  static constexpr int kWarps = 4;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kBlocks = 5;    // of a multiprocessor: 96 registers a thread
  static constexpr int kMaxRows = 64;  // of a block: 24 KB, of which five fit sm_80 too
  // What a block does beside its rows (weights, normalisation), in rows: 410 instructions of a warp, and 44 a row.
  static constexpr int kSetupRows = 9;

  static constexpr int kRowTaps = kKernel * kInChannels;
  static constexpr int kRowWords = (kRowTaps + 1) / 2;
  static constexpr int kPixel = kStride * kInChannels;  // from an output pixel's first value to the next one's
  static constexpr int kRowValues = (kColumns - 1) * kPixel + kRowTaps;
  static constexpr int kPitch = (kRowValues + 2) / 2 * 2;  // and the tenth value of the last pixel
  static constexpr int kLoads = 4;                         // rows of a thread whose pixels are in flight at once

  // Whole batches of loads, so that few of them are guarded.
  static constexpr int kRowsAtOnce = kThreads / 64, kBatchRows = kRowsAtOnce * kLoads;
  static __host__ __device__ constexpr int patch_rows(int rows) {
    return ((rows - 1) * kStride + kKernel + kBatchRows - 1) / kBatchRows * kBatchRows;
  }
  static constexpr int shared_bytes(int rows) { return patch_rows(rows) * kPitch * static_cast<int>(sizeof(T)); }
  static_assert(sizeof(T) == 2 && kPixel % 2 == 0, "operand words are aligned");
  static_assert(kKernel * kRowWords <= 16, "K is 32 values");
  static_assert(kPitch / 2 <= 64 && kThreads % 64 == 0, "a thread stages one pair of columns");
};

template <class T_>
struct StemConvArgs {
  StemImage image;
  Global<const T_> weight;   // [out_channels, kernel, kernel, channels]
  Global<const float> bias;  // [out_channels]
  Global<T_> y;              // [images, out_height, out_width, out_channels]
  int out_channels, out_height, out_width;
  int kernel, stride, top, left;
  int rows;              // of a block
  int tiles_y, tiles_x;  // of an image
  Activation activation;
};

template <class Traits, class Pixel>
__device__ __forceinline__ void stage_patch(const StemImage& image, int64_t n, int first_row, int first_column,
                                            int rows, Shared<typename Traits::T> patch) {
  // A thread has two neighbouring values of every kStep-th row.
  constexpr int kStep = Traits::kRowsAtOnce;
  const int pair = threadIdx.x % 64, row = threadIdx.x / 64;
  if (pair >= Traits::kPitch / 2) return;
  const auto channel = [&](int v) { return (2 * pair + v) % Traits::kInChannels; };
  const Normalisation normalise[2] = {{image, channel(0)}, {image, channel(1)}};
  Global<const Pixel> from[2];
  uint32_t keep = 0;  // what is inside of the two values: beside the image its outermost columns are read
#pragma unroll
  for (int v = 0; v < 2; v++) {
    int x = first_column + (2 * pair + v) / Traits::kInChannels;
    if (x >= 0 && x < image.width && 2 * pair + v < Traits::kRowValues) keep |= v == 0 ? 0xffffu : 0xffff0000u;
    x = x < 0 ? 0 : x < image.width ? x : image.width - 1;
    from[v] =
        Global<const Pixel>(static_cast<const Pixel*>(image.pixels)) +
        (n * image.stride_n + channel(v) * image.stride_c + x * image.stride_w + (first_row + row) * image.stride_h);
  }
  Shared<typename Traits::T> to = patch + (row * Traits::kPitch + 2 * pair);
  const int64_t step = kStep * image.stride_h;
  const auto stage_batch = [&]<bool kInside>(int first_y) {
    Pixel pixels[Traits::kLoads][2];
#pragma unroll
    for (int i = 0; i < Traits::kLoads; i++) {
      const bool inside = kInside || static_cast<unsigned>(first_y + i * kStep) < static_cast<unsigned>(image.height);
#pragma unroll
      for (int v = 0; v < 2; v++) {
        pixels[i][v] = inside ? load<Pixel>(from[v]) : Pixel{};
        from[v] = from[v] + step;
      }
    }
#pragma unroll
    for (int i = 0; i < Traits::kLoads; i++) {
      const bool inside = kInside || static_cast<unsigned>(first_y + i * kStep) < static_cast<unsigned>(image.height);
      float values[2];
#pragma unroll
      for (int v = 0; v < 2; v++) values[v] = normalise[v](pixel_value(pixels[i][v]));
      Pack<typename Traits::T, 2> value = pack<typename Traits::T>(values);
      value.words[0] &= inside ? keep : 0;
      store(to + i * kStep * Traits::kPitch, value);
    }
    to = to + Traits::kBatchRows * Traits::kPitch;
  };
  for (int batch = 0; batch < rows; batch += Traits::kBatchRows) {
    const int y = first_row + batch;
    if (y >= 0 && y + Traits::kBatchRows <= image.height)
      stage_batch.template operator()<true>(y + row);
    else
      stage_batch.template operator()<false>(y + row);
  }
}

template <class Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kBlocks)
    stem_conv_kernel(const __grid_constant__ StemConvArgs<typename Traits::T> args) {
  using T = typename Traits::T;
  constexpr int kFragments = Traits::kChannels / 8, kWords = 4;  // a thread's words of K
  constexpr int kTaps = Traits::kKernel * Traits::kRowTaps;
  constexpr uint32_t kBothValues = 0xffffffff, kFirstValue = 0xffff;
  const auto patch = shared_memory<T>();
  const int lane = ptx::lane(), group = lane / 4, quad = lane % 4, warp = threadIdx.x / 32;
  const int row_of_tiles = blockIdx.x / args.tiles_x;
  const int64_t image = row_of_tiles / args.tiles_y;
  const int first_row = static_cast<int>(row_of_tiles - image * args.tiles_y) * args.rows;
  const int first_column = static_cast<int>(blockIdx.x - row_of_tiles * args.tiles_x) * Traits::kColumns;

  // Words quad, quad + 4, ... of K: where they are behind a pixel's first value, and what of them counts.
  int offset[kWords];
  uint32_t mask[kWords];
#pragma unroll
  for (int i = 0; i < kWords; i++) {
    const int word = 4 * i + quad, ky = word / Traits::kRowWords, tap = word % Traits::kRowWords * 2;
    offset[i] = ky < Traits::kKernel ? ky * Traits::kPitch + tap : 0;
    mask[i] = ky >= Traits::kKernel ? 0 : tap + 1 < Traits::kRowTaps ? kBothValues : kFirstValue;
  }

  // Column 2 q + e of fragment f is channel 8 q + 2 f + e: a thread's sums are then 8 neighbouring channels.
  uint32_t weights[kFragments][kWords];
  float bias[2 * kFragments] = {};
  const auto load_weights = [&](int first_channel) {
    const int column_channel = first_channel + 8 * (group / 2) + group % 2;
    const bool inside = column_channel < args.out_channels;  // and then its neighbours: they come in eights
#pragma unroll
    for (int i = 0; i < kWords; i++) {
      const int word = 4 * i + quad, ky = word / Traits::kRowWords, tap = word % Traits::kRowWords * 2;
      const uint32_t keep = inside ? mask[i] : 0;  // what is not kept is read from the first channels
      const auto low = args.weight + (keep ? column_channel * int64_t{kTaps} + ky * Traits::kRowTaps + tap : 0);
      const auto high = low + (keep == kBothValues ? 1 : 0);
#pragma unroll
      for (int f = 0; f < kFragments; f++) {
        const uint32_t first = load_constant<uint16_t>(low + 2 * f * kTaps);
        const uint32_t second = load_constant<uint16_t>(high + 2 * f * kTaps);
        weights[f][i] = (first | second << 16) & keep;
      }
    }
    const int channel = first_channel + 8 * quad;
    if (channel < args.out_channels) {
#pragma unroll
      for (int i = 0; i < 2 * kFragments; i += 4) {
        float values[4];
        unpack(load_constant<Pack<float, 4>>(args.bias + (channel + i)), values);
#pragma unroll
        for (int v = 0; v < 4; v++) bias[i + v] = values[v];
      }
    }
  };

  load_weights(0);
  ptx::grid_dependency_launch();
  ptx::grid_dependency_wait();
  with_pixel<T>(args.image.dtype, [&]<class Pixel>() {
    stage_patch<Traits, Pixel>(args.image, image, first_row * Traits::kStride - args.top,
                               first_column * Traits::kStride - args.left, Traits::patch_rows(args.rows), patch);
  });
  ptx::sync_threads();

  const int rows = args.out_height - first_row < args.rows ? args.out_height - first_row : args.rows;
  const int64_t first_pixel = (image * args.out_height + first_row + warp) * args.out_width + first_column + group;
  const int64_t row_step = static_cast<int64_t>(Traits::kWarps) * args.out_width * args.out_channels;
  const bool column_inside[2] = {first_column + group < args.out_width, first_column + group + 8 < args.out_width};
  for (int first_channel = 0;;) {
    const int channel = first_channel + 8 * quad;
    const bool channel_inside = channel < args.out_channels;
    Shared<T> pixel = patch + (warp * Traits::kStride * Traits::kPitch + group * Traits::kPixel);
    Global<T> to = args.y + (first_pixel * args.out_channels + channel);
    // nvcc would make two rows at once for sm_100 and sm_120, which takes more than 96 registers.
#pragma unroll 1
    for (int row = warp; row < rows; row += Traits::kWarps) {
      uint32_t a[2][4];
#pragma unroll
      for (int i = 0; i < kWords; i++) {
        const auto from = pixel + offset[i];
        a[i / 2][i % 2 * 2] = load<uint32_t>(from) & mask[i];
        a[i / 2][i % 2 * 2 + 1] = load<uint32_t>(from + 8 * Traits::kPixel) & mask[i];
      }
      float sums[kFragments][4];
#pragma unroll
      for (int f = 0; f < kFragments; f++) {
#pragma unroll
        for (int i = 0; i < 4; i++) sums[f][i] = bias[2 * f + i % 2];
#pragma unroll
        for (int step = 0; step < 2; step++) mma<T>(sums[f], a[step], {weights[f][2 * step], weights[f][2 * step + 1]});
      }
      activate_all<Traits::kSilu, T>(args.activation, sums);
#pragma unroll
      for (int j = 0; j < 2; j++) {
        float values[2 * kFragments];
#pragma unroll
        for (int i = 0; i < 2 * kFragments; i++) values[i] = sums[i / 2][2 * j + i % 2];
        if (column_inside[j] && channel_inside) store(to + 8 * j * args.out_channels, pack<T>(values));
      }
      pixel = pixel + Traits::kWarps * Traits::kStride * Traits::kPitch;
      to = to + row_step;
    }
    first_channel += Traits::kChannels;
    if (first_channel >= args.out_channels) break;
    load_weights(first_channel);
  }
}

// Any kernel, stride, channels and storage type. A block makes 128 pixels of 32 channels: a warp has 8 of the channels,
// whose weights it reads 16 bytes at a time for all its lanes at once, and a lane 4 of the pixels.
template <class T_, bool kSilu_>
struct StemConvGeneralTraits {
  using T = T_;
  static constexpr bool kSilu = kSilu_;
  static constexpr int kWarps = 4;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kBlocks = 5;
  static constexpr int kThreadChannels = 8, kThreadPixels = 4;
  static constexpr int kChannels = kWarps * kThreadChannels;
  static constexpr int kPixels = 32 * kThreadPixels;
  static constexpr int kTaps = 64;  // staged at a time
  static constexpr int kSharedBytes = kTaps * kChannels * static_cast<int>(sizeof(float));
};

template <class Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kBlocks)
    stem_conv_general_kernel(const __grid_constant__ StemConvArgs<typename Traits::T> args) {
  using T = typename Traits::T;
  constexpr int kThreadPixels = Traits::kThreadPixels, kThreadChannels = Traits::kThreadChannels;
  const auto weights = shared_memory<float>();  // [kTaps][kChannels]
  const StemImage& image = args.image;
  const int lane = ptx::lane(), warp = threadIdx.x / 32;
  const int64_t n = blockIdx.x / args.tiles_x;
  const int first_pixel = static_cast<int>(blockIdx.x - n * args.tiles_x) * Traits::kPixels + lane;
  const int first_channel = blockIdx.y * Traits::kChannels, channel = first_channel + warp * kThreadChannels;
  const int pixels = args.out_height * args.out_width;
  const int taps = args.kernel * args.kernel * image.channels;
  ptx::grid_dependency_launch();
  ptx::grid_dependency_wait();

  int y[kThreadPixels], x[kThreadPixels];
#pragma unroll
  for (int i = 0; i < kThreadPixels; i++) {
    const int pixel = first_pixel + 32 * i;
    // Beyond the last pixel every tap is outside the image.
    y[i] = pixel < pixels ? pixel / args.out_width * args.stride - args.top : image.height;
    x[i] = pixel % args.out_width * args.stride - args.left;
  }
  float sums[kThreadPixels * kThreadChannels / 4][4];
#pragma unroll
  for (int c = 0; c < kThreadChannels; c++) {
    const float bias = channel + c < args.out_channels ? load_constant<float>(args.bias + (channel + c)) : 0.0f;
#pragma unroll
    for (int i = 0; i < kThreadPixels; i++) sums[i * 2 + c / 4][c % 4] = bias;
  }

  with_pixel<T>(image.dtype, [&]<class Pixel>() {
    const auto pixels_of_image = Global<const Pixel>(static_cast<const Pixel*>(image.pixels)) + n * image.stride_n;
    for (int first_tap = 0; first_tap < taps; first_tap += Traits::kTaps) {
      ptx::sync_threads();
      for (int i = threadIdx.x; i < Traits::kTaps * Traits::kChannels; i += Traits::kThreads) {
        const int tap = first_tap + i / Traits::kChannels, of = first_channel + i % Traits::kChannels;
        const bool inside = tap < taps && of < args.out_channels;
        const T* from = args.weight.pointer + (static_cast<int64_t>(inside ? of : 0) * taps + (inside ? tap : 0));
        store(weights + i, inside ? to_float(load_constant<T>(Global<const T>(from))) : 0.0f);
      }
      ptx::sync_threads();
      const int last = taps - first_tap < Traits::kTaps ? taps - first_tap : Traits::kTaps;
      for (int t = 0; t < last; t++) {
        const int tap = (first_tap + t) / image.channels, c = first_tap + t - tap * image.channels;
        const int ky = tap / args.kernel, kx = tap - ky * args.kernel;
        const Normalisation normalise(image, c);
        float weight[kThreadChannels / 4][4];
#pragma unroll
        for (int i = 0; i < kThreadChannels / 4; i++) {
          const auto from = weights + (t * Traits::kChannels + warp * kThreadChannels + 4 * i);
          unpack(load<Pack<float, 4>>(from), weight[i]);
        }
#pragma unroll
        for (int i = 0; i < kThreadPixels; i++) {
          const int row = y[i] + ky, column = x[i] + kx;
          float value = 0.0f;
          if (row >= 0 && row < image.height && column >= 0 && column < image.width) {
            const int64_t at = row * image.stride_h + column * image.stride_w + c * image.stride_c;
            value = to_float(to_storage<T>(normalise(pixel_value(load<Pixel>(pixels_of_image + at)))));
          }
#pragma unroll
          for (int j = 0; j < kThreadChannels; j++) {
            float& sum = sums[i * 2 + j / 4][j % 4];
            sum = ptx::fma(value, weight[j / 4][j % 4], sum);
          }
        }
      }
    }
  });

  activate_all<Traits::kSilu, T>(args.activation, sums);
#pragma unroll
  for (int i = 0; i < kThreadPixels; i++) {
    const int pixel = first_pixel + 32 * i;
    if (pixel >= pixels) break;
    const auto to = args.y + ((n * pixels + pixel) * args.out_channels + channel);
#pragma unroll
    for (int j = 0; j < kThreadChannels; j++) {
      if (channel + j < args.out_channels) store(to + j, to_storage<T>(sums[i * 2 + j / 4][j % 4]));
    }
  }
}

}  // namespace effnet_fast::cuda
