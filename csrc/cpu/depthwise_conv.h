// depthwise_conv and depthwise_conv_pool: one k x k filter per channel, activation, and the sums that squeeze-excite
// needs, in one pass. Included inside an instruction set's namespace.
//
// A task takes one image and kChunkVectors vectors of channels. Input rows are copied, converted to float32, into a
// ring of k zero-padded rows that stays in the cache, so that the inner loop has no border and no conversion. The ring
// has a vector of channels of all pixels side by side, so that its distances are constants in the inner loop.
// expand_depthwise.h and mbconv.h fill the same ring with matrix products.
#pragma once

// Most vectors of channels of a task: 48 channels, which divide the width of every expansion by six; where a matrix
// unit multiplies, 64.
#ifdef EFFNET_FAST_HAS_AMX
inline constexpr int64_t kChunkVectors = kUnitVectors;
#else
inline constexpr int64_t kChunkVectors = 48 / Vec::kWidth;
#endif

// The channels of a task: whole matrix panels (see matrix.h), so that an expansion can fill the ring panel by panel.
struct Chunks {
  PanelSplit panels;
  int64_t count;
  explicit Chunks(const PanelSplit& panels)
      : panels(panels), count(ceil_div(panels.count, kChunkVectors / panels.most)) {}
  int64_t first_panel(int64_t chunk) const { return chunk * panels.count / count; }
  int64_t first_vector(int64_t chunk) const { return panels.first_vector(first_panel(chunk)); }
  int64_t first_channel(int64_t chunk) const { return first_vector(chunk) * Vec::kWidth; }
  int64_t width(int64_t chunk) const { return first_channel(chunk + 1) - first_channel(chunk); }
  int64_t padded_channels() const { return panels.vectors * Vec::kWidth; }
};

// A row of the ring from a pixel on, in float32: [vectors][pixels][W], vectors `vector_floats` apart.
struct RingRow {
  float* pixels;
  int64_t vector_floats;
};

struct DepthwiseRow {
  const float* const* taps;    // the ring row under each kernel row
  int64_t vector_floats;       // of a ring row
  int64_t first_tap, end_tap;  // kernel rows that lie inside the image
  int64_t kernel, stride;
  const float* weight;  // [vectors][kernel * kernel][W]
  const float* bias;    // [vectors][W]
  int64_t vectors;
  int64_t y_stride;  // distance of two pixels of y
  int64_t channels;  // of y that exist from the first vector on; the last vector may have more
  Activation activation;
};

// Output pixels [begin, end) of one row, kTile at a time, of every vector; the activated float32 values are added to
// sums[vectors]. kKernel 0 is any kernel and any stride. Precision: the type that the activation is as exact as.
template <class Storage, class Precision, int kKernel, int kStride, int kTile>
static void depthwise_row(const DepthwiseRow& r, int64_t begin, int64_t end, Storage* y, Vec* sums) {
  const int64_t kernel = kKernel ? kKernel : r.kernel, stride = kKernel ? kStride : r.stride;
  for (int64_t v = 0; v < r.vectors; v++) {
    const int64_t channel = v * Vec::kWidth;
    const float* filter = r.weight + v * kernel * kernel * Vec::kWidth;
    const Vec bias = load(r.bias + channel);
    const int lanes = static_cast<int>(std::min<int64_t>(Vec::kWidth, r.channels - channel));
    Vec total = sums[v];
    for (int64_t ox = begin; ox < end; ox += kTile) {
      Vec out[kTile];
#pragma GCC unroll 16
      for (int i = 0; i < kTile; i++) out[i] = bias;
      for (int64_t ky = r.first_tap; ky < r.end_tap; ky++) {
        const float* x = r.taps[ky] + v * r.vector_floats + ox * stride * Vec::kWidth;
        const float* weight = filter + ky * kernel * Vec::kWidth;
        if constexpr (kKernel != 0) {
          Vec w[kKernel];
#pragma GCC unroll 8
          for (int kx = 0; kx < kKernel; kx++) w[kx] = load(weight + kx * Vec::kWidth);
          // Each input pixel is loaded once and feeds every output that it lies under.
#pragma GCC unroll 64
          for (int ix = 0; ix < (kTile - 1) * kStride + kKernel; ix++) {
            Vec pixel = load(x + ix * Vec::kWidth);
            keep_loaded(pixel);
#pragma GCC unroll 8
            for (int kx = 0; kx < kKernel; kx++) {
              const int i = ix - kx;
              if (i >= 0 && i % kStride == 0 && i / kStride < kTile)
                out[i / kStride] = fma(pixel, w[kx], out[i / kStride]);
            }
          }
        } else {
          for (int64_t kx = 0; kx < kernel; kx++) {
            const Vec w = load(weight + kx * Vec::kWidth);
#pragma GCC unroll 16
            for (int i = 0; i < kTile; i++) out[i] = fma(load(x + (i * stride + kx) * Vec::kWidth), w, out[i]);
          }
        }
      }
      with_activation(r.activation, [&]<Activation kActivation>() {
#pragma GCC unroll 16
        for (int i = 0; i < kTile; i++) out[i] = activate<kActivation, Precision>(out[i]);
      });
      Storage* to = y + ox * r.y_stride + channel;
      Vec part = set1(0.0f);  // of one tile first: shorter sums are more exact
      if (end - ox >= kTile && lanes == Vec::kWidth) {
#pragma GCC unroll 16
        for (int i = 0; i < kTile; i++) {
          part = add(part, out[i]);
          store(to + i * r.y_stride, out[i]);
        }
      } else {  // the last tile reaches into the padding, or the last vector beyond the channels
#pragma GCC unroll 16
        for (int i = 0; i < kTile; i++) {
          if (i >= end - ox) break;
          part = add(part, out[i]);
          store_n(to + i * r.y_stride, out[i], lanes);
        }
      }
      total = add(total, part);
    }
    sums[v] = total;
  }
}

template <class Storage>
using DepthwiseRowKernel = void (*)(const DepthwiseRow&, int64_t begin, int64_t end, Storage* y, Vec* sums);

// Widths of tiles, widest first. With 32 registers 14 accumulators hide the latency of the multiply-add and load each
// weight half as often as 7 do: 77 GMAC/s of a Zen 5 core against 53 for 5 x 5. 14 divides the rows of 224 pixel
// images, 12 those of 380 (rounded up by a pixel at most).
inline constexpr int kWideTiles[] = {14, 12, 7, 4};
inline constexpr int kNarrowTiles[] = {8, 7, 4, 4};
inline constexpr const int (&kDepthwiseTiles)[4] = Vec::kWidth == 16 ? kWideTiles : kNarrowTiles;

// A row as some whole tiles and a rest in one smaller tile: the split that computes the fewest pixels, of equal ones
// that with the widest tiles.
struct RowSplit {
  int tile, rest_tile;  // 0: no rest
  int64_t whole;        // pixels in whole tiles
  int64_t computed;     // as far as tiles reach
  explicit RowSplit(int64_t width) : tile(0), rest_tile(0), whole(0), computed(0) {
    for (int candidate : kDepthwiseTiles) {
      const int64_t in_tiles = width / candidate * candidate;
      int smallest = 0;
      for (int rest : kDepthwiseTiles) {
        if (rest >= width - in_tiles && width > in_tiles) smallest = rest;
      }
      if (!computed || in_tiles + smallest < computed) {
        tile = candidate, rest_tile = smallest, whole = in_tiles, computed = in_tiles + smallest;
      }
    }
  }
};

template <class Storage, class Precision, int kKernel, int kStride>
static DepthwiseRowKernel<Storage> depthwise_row_of_tile(int tile) {
  if (tile == kDepthwiseTiles[0]) return depthwise_row<Storage, Precision, kKernel, kStride, kDepthwiseTiles[0]>;
  if (tile == kDepthwiseTiles[1]) return depthwise_row<Storage, Precision, kKernel, kStride, kDepthwiseTiles[1]>;
  if (tile == kDepthwiseTiles[2]) return depthwise_row<Storage, Precision, kKernel, kStride, kDepthwiseTiles[2]>;
  return depthwise_row<Storage, Precision, kKernel, kStride, 4>;
}

template <class Storage, class Precision>
static DepthwiseRowKernel<Storage> depthwise_row_for(int64_t kernel, int64_t stride, int tile) {
  if (kernel == 3 && stride == 1) return depthwise_row_of_tile<Storage, Precision, 3, 1>(tile);
  if (kernel == 3 && stride == 2) return depthwise_row_of_tile<Storage, Precision, 3, 2>(tile);
  if (kernel == 5 && stride == 1) return depthwise_row_of_tile<Storage, Precision, 5, 1>(tile);
  if (kernel == 5 && stride == 2) return depthwise_row_of_tile<Storage, Precision, 5, 2>(tile);
  if (kernel == 7 && stride == 1) return depthwise_row_of_tile<Storage, Precision, 7, 1>(tile);
  if (kernel == 7 && stride == 2) return depthwise_row_of_tile<Storage, Precision, 7, 2>(tile);
  return depthwise_row_of_tile<Storage, Precision, 0, 1>(tile);
}

// The ring of one thread, and a depthwise convolution over it, a chunk of channels at a time.
template <class Storage, class Precision>
struct RingConv {
  const ConvGeometry& g;
  const Chunks chunks;
  const RowSplit split;
  const float *weight, *bias;
  const Activation activation;
  const int64_t block_rows;  // output rows of a task, whose sums are taken together
  const int64_t ring_w;      // pixels of a ring row: padding, and as far as the last tile reads
  const int64_t vector_floats;
  const int64_t ring_floats;
  const DepthwiseRowKernel<Storage> whole_tiles, rest_tile;

  RingConv(const ConvGeometry& g, const Chunks& chunks, const PackedHeader& packed, Activation activation,
           int64_t block_rows)
      : g(g),
        chunks(chunks),
        split(g.out_w()),
        weight(section<float>(packed, packed.weight)),
        bias(section<float>(packed, packed.bias)),
        activation(activation),
        block_rows(block_rows),
        ring_w(std::max(g.left + g.w + g.right, (split.computed - 1) * g.stride + g.kernel)),
        vector_floats(ring_w * Vec::kWidth),
        ring_floats(g.kernel * kChunkVectors * vector_floats),
        whole_tiles(depthwise_row_for<Storage, Precision>(g.kernel, g.stride, split.tile)),
        rest_tile(depthwise_row_for<Storage, Precision>(g.kernel, g.stride, split.rest_tile)) {}

  // Output rows of the blocks [first_block, last_block) of `chunk`.
  //   fill(iy, to)        writes the float32 values of input row iy and the chunk's channels to the RingRow `to`
  //   y                   channel 0 of the chunk of output pixel (0, 0); pixels lie `y_stride` apart, and `channels`
  //                       from there on exist
  //   done(block, sums)   takes the sums of a block, a vector for each of the chunk's
  template <class Fill, class Done>
  void run(int64_t chunk, int64_t first_block, int64_t last_block, const TapScratch& scratch, Storage* y,
           int64_t y_stride, int64_t channels, const Fill& fill, const Done& done) const {
    const int64_t out_h = g.out_h(), out_w = g.out_w();
    const int64_t first_vector = chunks.first_vector(chunk), vectors = chunks.first_vector(chunk + 1) - first_vector;
    const int64_t row_floats = vectors * vector_floats;
    float* ring = scratch.floats;
    for (int64_t v = 0; v < g.kernel * vectors; v++) {
      float* pixels = ring + v * vector_floats;
      std::fill_n(pixels, g.left * Vec::kWidth, 0.0f);
      std::fill_n(pixels + (g.left + g.w) * Vec::kWidth, (ring_w - g.left - g.w) * Vec::kWidth, 0.0f);
    }
    DepthwiseRow row{scratch.taps,
                     vector_floats,
                     0,
                     0,
                     g.kernel,
                     g.stride,
                     weight + first_vector * g.kernel * g.kernel * Vec::kWidth,
                     bias + first_vector * Vec::kWidth,
                     vectors,
                     y_stride,
                     channels,
                     activation};
    int64_t next = 0;  // input row to be filled in
    for (int64_t block = first_block; block < last_block; block++) {
      Vec sums[kChunkVectors];
      for (int64_t v = 0; v < row.vectors; v++) sums[v] = set1(0.0f);
      for (int64_t oy = block * block_rows; oy < std::min((block + 1) * block_rows, out_h); oy++) {
        const int64_t origin = oy * g.stride - g.top;
        next = std::max(next, origin);
        for (; next < std::min(origin + g.kernel, g.h); next++) {
          fill(next, RingRow{ring + next % g.kernel * row_floats + g.left * Vec::kWidth, vector_floats});
        }
        row.first_tap = std::max<int64_t>(-origin, 0);
        row.end_tap = std::min(g.kernel, g.h - origin);
        for (int64_t ky = row.first_tap; ky < row.end_tap; ky++) {
          scratch.taps[ky] = ring + (origin + ky) % g.kernel * row_floats;
        }
        Storage* to = y + oy * out_w * y_stride;
        if (split.whole) whole_tiles(row, 0, split.whole, to, sums);
        if (split.rest_tile) rest_tile(row, split.whole, out_w, to, sums);
      }
      done(block, sums);
    }
  }
};

// The float32 sums of a bfloat16 map are results too, so its activation is as exact as float16's.
template <class Storage>
using SumPrecision = std::conditional_t<std::is_same_v<Storage, bfloat16>, float16, Storage>;

// The convolution of whole images in NHWC over a ring that `fill` supplies: fill(n, iy, chunk, to, scratch, unit);
// `scratch` has `scratch_floats` floats for its own use. `images_outermost` is the order of the tasks: neighbours share
// an image, or the weights of a chunk.
template <class Storage, class Fill>
static void depthwise_over_ring(const DepthwiseConvArgs& a, const Chunks& chunks, const Parallel& parallel,
                                bool images_outermost, int64_t scratch_floats, const Fill& fill) {
  const ConvGeometry& g = a.geometry;
  const RingConv<Storage, SumPrecision<Storage>> conv(g, chunks, *a.packed, a.activation, kPoolTile);
  const int64_t blocks = g.pool_rows();  // a task's rows: whole pool tiles, so that the sums do not depend on the split
  Storage* y = static_cast<Storage*>(a.y);

  parallel(g.n * chunks.count * blocks, [&](int64_t begin, int64_t end) {
    const TapScratch scratch(g.kernel, conv.ring_floats + scratch_floats);
    MatrixUnit unit;
    for (int64_t item = begin; item < end;) {
      const int64_t first_block = item % blocks, last_block = std::min(first_block + end - item, blocks);
      const int64_t pair = item / blocks;
      const int64_t chunk = images_outermost ? pair % chunks.count : pair / g.n;
      const int64_t n = images_outermost ? pair / chunks.count : pair % g.n;
      const int64_t first_channel = chunks.first_channel(chunk);
      item += last_block - first_block;
      conv.run(
          chunk, first_block, last_block, scratch, y + n * g.out_h() * g.out_w() * g.c + first_channel, g.c,
          g.c - first_channel,
          [&](int64_t iy, const RingRow& to) { fill(n, iy, chunk, to, scratch.floats + conv.ring_floats, unit); },
          [&](int64_t block, const Vec* sums) {
            if (!a.sums) return;
            // One sum for the whole row of pool tiles, in its first tile; the others are zero.
            for (int64_t col = 0; col < g.pool_cols(); col++) {
              float* to = a.sums + ((n * g.pool_rows() + block) * g.pool_cols() + col) * g.c + first_channel;
              for (int64_t c = 0; c < chunks.width(chunk); c += Vec::kWidth) {
                const int lanes = static_cast<int>(std::min<int64_t>(Vec::kWidth, g.c - first_channel - c));
                store_n(to + c, col == 0 ? sums[c / Vec::kWidth] : set1(0.0f), lanes);
              }
            }
          });
    }
  });
}

// Fills `width` pixels of `to` with `channels` channels of x's, whose pixels lie `x_stride` apart.
template <class Storage>
static void copy_to_ring(const Storage* x, int64_t x_stride, int64_t width, int64_t channels, const RingRow& to) {
  for (int64_t ix = 0; ix < width; ix++, x += x_stride) {
    float* pixel = to.pixels + ix * Vec::kWidth;
    int64_t c = 0;
    for (; c + Vec::kWidth <= channels; c += Vec::kWidth, pixel += to.vector_floats) store(pixel, load(x + c));
    if (c < channels) store(pixel, load_n(x + c, static_cast<int>(channels - c)));
  }
}

template <class Storage>
static void depthwise_conv_as(const DepthwiseConvArgs& a, const Parallel& parallel) {
  const ConvGeometry& g = a.geometry;
  const Chunks chunks(split_columns(g.c, a.dtype, false));
  const Storage* x = static_cast<const Storage*>(a.x);
  depthwise_over_ring<Storage>(a, chunks, parallel, /*images_outermost=*/true, 0,
                               [&](int64_t n, int64_t iy, int64_t chunk, const RingRow& to, float*, MatrixUnit&) {
                                 const int64_t first_channel = chunks.first_channel(chunk);
                                 copy_to_ring(x + (n * g.h + iy) * g.w * g.c + first_channel, g.c, g.w,
                                              std::min(g.c - first_channel, chunks.width(chunk)), to);
                               });
}

static void depthwise_conv(const DepthwiseConvArgs& a, const Parallel& parallel) {
  switch (a.dtype) {
    case DType::kFloat32: return depthwise_conv_as<float>(a, parallel);
    case DType::kFloat16: return depthwise_conv_as<float16>(a, parallel);
    case DType::kBFloat16: return depthwise_conv_as<bfloat16>(a, parallel);
    case DType::kUInt8: return;
  }
}
