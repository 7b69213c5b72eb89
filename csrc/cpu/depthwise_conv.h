// depthwise_conv and depthwise_conv_pool: one k x k filter per channel, activation, and the sums that squeeze-excite
// needs, in one pass. Included inside an instruction set's namespace.
//
// A task takes one image and kChunkChannels channels. Input rows are copied, converted to float32, into a ring of
// k zero-padded rows that stays in the cache, so that the inner loop has no border, no conversion and a short stride.
#pragma once

inline constexpr int64_t kChunkVectors = 48 / Vec::kWidth;  // 48 divides the width of every expansion by six

// The channels of a task: whole matrix panels (see matrix.h), so that an expansion can fill the ring panel by panel.
struct Chunks {
  PanelSplit panels;
  int64_t count;
  explicit Chunks(int64_t channels)
      : panels(ceil_div(channels, Vec::kWidth)), count(ceil_div(panels.count * kPanelVectors, kChunkVectors)) {}
  int64_t first_panel(int64_t chunk) const { return chunk * panels.count / count; }
  int64_t first_vector(int64_t chunk) const { return panels.first_vector(first_panel(chunk)); }
};

struct DepthwiseRow {
  const float* const* taps;    // the ring row under each kernel row
  int64_t first_tap, end_tap;  // kernel rows that lie inside the image
  int64_t kernel, stride;
  int64_t pixel_floats;  // of a ring row
  const float* weight;   // [kernel * kernel][W]
  Vec bias;
  int64_t out_w;
  int64_t channels;  // of y: distance of two pixels
  int lanes;         // channels of this vector that exist
  Activation activation;
};

// One output row of one vector of channels, kTile pixels at a time; returns the sum of the activated float32 values.
// kKernel 0 is any kernel and any stride.
template <class Storage, int kKernel, int kStride, int kTile>
static Vec depthwise_row(const DepthwiseRow& r, Storage* y) {
  const int64_t kernel = kKernel ? kKernel : r.kernel, stride = kKernel ? kStride : r.stride;
  Vec total = set1(0.0f);
  for (int64_t ox = 0; ox < r.out_w; ox += kTile) {
    Vec out[kTile];
#pragma GCC unroll 8
    for (int i = 0; i < kTile; i++) out[i] = r.bias;
    for (int64_t ky = r.first_tap; ky < r.end_tap; ky++) {
      const float* x = r.taps[ky] + ox * stride * r.pixel_floats;
      const float* weight = r.weight + ky * kernel * Vec::kWidth;
      if constexpr (kKernel != 0) {
        Vec w[kKernel];
#pragma GCC unroll 8
        for (int kx = 0; kx < kKernel; kx++) w[kx] = load(weight + kx * Vec::kWidth);
        // Each input pixel is loaded once and feeds every output that it lies under.
#pragma GCC unroll 32
        for (int ix = 0; ix < (kTile - 1) * kStride + kKernel; ix++) {
          const Vec v = load(x + ix * r.pixel_floats);
#pragma GCC unroll 8
          for (int kx = 0; kx < kKernel; kx++) {
            const int i = ix - kx;
            if (i >= 0 && i % kStride == 0 && i / kStride < kTile) out[i / kStride] = fma(v, w[kx], out[i / kStride]);
          }
        }
      } else {
        for (int64_t kx = 0; kx < kernel; kx++) {
          const Vec w = load(weight + kx * Vec::kWidth);
#pragma GCC unroll 8
          for (int i = 0; i < kTile; i++) out[i] = fma(load(x + (i * stride + kx) * r.pixel_floats), w, out[i]);
        }
      }
    }
    const int64_t valid = std::min<int64_t>(kTile, r.out_w - ox);  // the last tile may reach into the padding
    with_activation(r.activation, [&]<Activation kActivation>() {
#pragma GCC unroll 8
      for (int i = 0; i < kTile; i++) {
        if (i < valid) {
          const Vec v = activate<kActivation, Storage>(out[i]);
          total = add(total, v);
          Storage* to = y + (ox + i) * r.channels;
          if (r.lanes == Vec::kWidth) {
            store(to, v);
          } else {
            store_n(to, v, r.lanes);
          }
        }
      }
    });
  }
  return total;
}

template <class Storage>
using DepthwiseRowKernel = Vec (*)(const DepthwiseRow&, Storage*);

template <class Storage, int kKernel, int kStride>
static DepthwiseRowKernel<Storage> depthwise_row_of_tile(int tile) {
  if (tile == 8) return depthwise_row<Storage, kKernel, kStride, 8>;
  if (tile == 7) return depthwise_row<Storage, kKernel, kStride, 7>;
  return depthwise_row<Storage, kKernel, kStride, 4>;
}

template <class Storage>
static DepthwiseRowKernel<Storage> depthwise_row_for(int64_t kernel, int64_t stride, int tile) {
  if (kernel == 3 && stride == 1) return depthwise_row_of_tile<Storage, 3, 1>(tile);
  if (kernel == 3 && stride == 2) return depthwise_row_of_tile<Storage, 3, 2>(tile);
  if (kernel == 5 && stride == 1) return depthwise_row_of_tile<Storage, 5, 1>(tile);
  if (kernel == 5 && stride == 2) return depthwise_row_of_tile<Storage, 5, 2>(tile);
  if (kernel == 7 && stride == 1) return depthwise_row_of_tile<Storage, 7, 1>(tile);
  if (kernel == 7 && stride == 2) return depthwise_row_of_tile<Storage, 7, 2>(tile);
  return depthwise_row<Storage, 0, 1, 4>;
}

// The tile that computes the fewest pixels beyond the row: 8 for 8, 16, 19 -> 24; 7 for 7, 14, 28; 4 for 1 to 4.
static int depthwise_tile(int64_t out_w) {
  int best = 8;
  for (int tile : {7, 4}) {
    if (ceil_div(out_w, tile) * tile < ceil_div(out_w, best) * best) best = tile;
  }
  return best;
}

// The depthwise convolution over a ring that `fill` supplies: fill(n, iy, chunk, pixels, scratch) writes the float32
// values of input row iy, [w][channels of the chunk], to `pixels`; `scratch` has `scratch_floats` floats for its own
// use. `images_outermost` is the order of the tasks: neighbours share an image, or the weights of a chunk.
template <class Storage, class Fill>
static void depthwise_over_ring(const DepthwiseConvArgs& a, const Parallel& parallel, bool images_outermost,
                                int64_t scratch_floats, const Fill& fill) {
  const ConvGeometry& g = a.geometry;
  const float* weight = section<float>(*a.packed, a.packed->weight);
  const float* bias = section<float>(*a.packed, a.packed->bias);
  const int64_t out_h = g.out_h(), out_w = g.out_w(), taps_per_channel = g.kernel * g.kernel;
  const Chunks chunks(g.c);
  const int64_t blocks = g.pool_rows();  // a task's rows: whole pool tiles, so that the sums do not depend on the split
  const bool special = (g.kernel == 3 || g.kernel == 5 || g.kernel == 7) && (g.stride == 1 || g.stride == 2);
  const int tile = special ? depthwise_tile(out_w) : 4;
  const auto row_kernel = depthwise_row_for<Storage>(g.kernel, g.stride, tile);
  // The last tile reads as far as its last pixel's last tap.
  const int64_t reach = (ceil_div(out_w, tile) * tile - 1) * g.stride + g.kernel;
  const int64_t ring_w = std::max(g.left + g.w + g.right, reach);
  Storage* y = static_cast<Storage*>(a.y);

  parallel(g.n * chunks.count * blocks, [&](int64_t begin, int64_t end) {
    const int64_t ring_floats = g.kernel * ring_w * kChunkVectors * Vec::kWidth;
    const TapScratch scratch(g.kernel, ring_floats + scratch_floats);
    const float** taps = scratch.taps;
    float* ring = scratch.floats;
    for (int64_t item = begin; item < end;) {
      const int64_t first_block = item % blocks, last_block = std::min(first_block + end - item, blocks);
      const int64_t pair = item / blocks;
      const int64_t chunk = images_outermost ? pair % chunks.count : pair / g.n;
      const int64_t n = images_outermost ? pair / chunks.count : pair % g.n;
      item += last_block - first_block;

      const int64_t first_vector = chunks.first_vector(chunk);
      const int64_t chunk_vectors = chunks.first_vector(chunk + 1) - first_vector;
      const int64_t first_channel = first_vector * Vec::kWidth;
      const int64_t pixel_floats = chunk_vectors * Vec::kWidth, row_floats = ring_w * pixel_floats;
      for (int64_t r = 0; r < g.kernel; r++) {
        float* row = ring + r * row_floats;
        std::fill_n(row, g.left * pixel_floats, 0.0f);
        std::fill_n(row + (g.left + g.w) * pixel_floats, (ring_w - g.left - g.w) * pixel_floats, 0.0f);
      }

      int64_t next = 0;  // input row to be filled in
      for (int64_t block = first_block; block < last_block; block++) {
        Vec sums[kChunkVectors];
        for (int64_t v = 0; v < chunk_vectors; v++) sums[v] = set1(0.0f);
        for (int64_t oy = block * kPoolTile; oy < std::min((block + 1) * kPoolTile, out_h); oy++) {
          const int64_t origin = oy * g.stride - g.top;
          next = std::max(next, origin);
          for (; next < std::min(origin + g.kernel, g.h); next++) {
            fill(n, next, chunk, ring + next % g.kernel * row_floats + g.left * pixel_floats, ring + ring_floats);
          }
          DepthwiseRow r{taps,
                         std::max<int64_t>(-origin, 0),
                         std::min(g.kernel, g.h - origin),
                         g.kernel,
                         g.stride,
                         pixel_floats,
                         nullptr,
                         set1(0.0f),
                         out_w,
                         g.c,
                         Vec::kWidth,
                         a.activation};
          for (int64_t v = 0; v < chunk_vectors; v++) {
            const int64_t vector = first_vector + v, channel = vector * Vec::kWidth;
            for (int64_t ky = r.first_tap; ky < r.end_tap; ky++) {
              taps[ky] = ring + (origin + ky) % g.kernel * row_floats + v * Vec::kWidth;
            }
            r.weight = weight + vector * taps_per_channel * Vec::kWidth;
            r.bias = load(bias + channel);
            r.lanes = static_cast<int>(std::min<int64_t>(Vec::kWidth, g.c - channel));
            sums[v] = add(sums[v], row_kernel(r, y + ((n * out_h + oy) * out_w) * g.c + channel));
          }
        }
        if (!a.sums) continue;
        // One sum for the whole row of pool tiles, in its first tile; the others are zero.
        for (int64_t col = 0; col < g.pool_cols(); col++) {
          float* to = a.sums + ((n * g.pool_rows() + block) * g.pool_cols() + col) * g.c + first_channel;
          for (int64_t v = 0; v < chunk_vectors; v++) {
            const int lanes = static_cast<int>(std::min<int64_t>(Vec::kWidth, g.c - first_channel - v * Vec::kWidth));
            store_n(to + v * Vec::kWidth, col == 0 ? sums[v] : set1(0.0f), lanes);
          }
        }
      }
    }
  });
}

template <class Storage>
static void depthwise_conv_as(const DepthwiseConvArgs& a, const Parallel& parallel) {
  const ConvGeometry& g = a.geometry;
  const Chunks chunks(g.c);
  const Storage* x = static_cast<const Storage*>(a.x);
  depthwise_over_ring<Storage>(
      a, parallel, /*images_outermost=*/true, 0, [&](int64_t n, int64_t iy, int64_t chunk, float* pixels, float*) {
        const int64_t first_channel = chunks.first_vector(chunk) * Vec::kWidth;
        const int64_t pixel_floats = chunks.first_vector(chunk + 1) * Vec::kWidth - first_channel;
        const int64_t channels = std::min(g.c - first_channel, pixel_floats);
        const Storage* row = x + (n * g.h + iy) * g.w * g.c + first_channel;
        for (int64_t ix = 0; ix < g.w; ix++, row += g.c, pixels += pixel_floats) {
          int64_t c = 0;
          for (; c + Vec::kWidth <= channels; c += Vec::kWidth) store(pixels + c, load(row + c));
          if (c < channels) store(pixels + c, load_n(row + c, static_cast<int>(channels - c)));
        }
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
