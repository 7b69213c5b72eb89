// dense_conv and stem_conv: a k x k convolution over all channels, as a matrix product over a ring of padded rows.
// Included inside an instruction set's namespace.
#pragma once

// Output rows of one task. Each task converts kernel - stride input rows again, so not too few; batch 1 wants many.
inline constexpr int64_t kConvRowBlock = 8;

// The channels of one input row, interleaved and normalised, between the zeros of the padding. A 16-bit result
// wants 16-bit products, so the normalised pixel is rounded to that type first, as a separate pass would.
template <class Image, class Storage>
static void gather_row(const ConvArgs& a, const Image* row, float* padded) {
  const ConvGeometry& g = a.geometry;
  float* pixels = padded + g.left * g.c;
  std::fill_n(padded, g.left * g.c, 0.0f);
  std::fill_n(pixels + g.w * g.c, g.right * g.c, 0.0f);
  for (int64_t c = 0; c < g.c; c++) {
    const Image* plane = row + c * a.stride_c;
    const float mean = a.mean ? a.mean[c] : 0.0f, inverse_std = a.mean ? a.inverse_std[c] : 1.0f;
    for (int64_t x = 0; x < g.w; x++) {
      const float value = to_float(plane[x * a.stride_w]);
      const float normalised = a.mean ? (value * a.unit - mean) * inverse_std : value;
      pixels[x * g.c + c] = to_float(from_float<Storage>(normalised));
    }
  }
}

template <class Image, class Storage>
static void conv_as(const ConvArgs& a, const Parallel& parallel) {
  const ConvGeometry& g = a.geometry;
  const Panels panels(*a.packed);
  const int64_t out_h = g.out_h(), out_w = g.out_w(), columns = panels.columns;
  const int64_t blocks = ceil_div(out_h, kConvRowBlock), tiles = ceil_div(out_w, kTileRows);
  const int64_t row_floats = (g.left + g.w + g.right) * g.c;
  const Image* x = static_cast<const Image*>(a.x);
  const Storage* residual = static_cast<const Storage*>(a.residual);
  Storage* y = static_cast<Storage*>(a.y);

  parallel(g.n * blocks, [&](int64_t begin, int64_t end) {
    const int64_t ring_floats = g.kernel * row_floats;
    const TapScratch scratch(g.kernel, kTileFloats + ring_floats + row_floats);
    const float** taps = scratch.taps;
    float* tile = scratch.floats;
    float* ring = tile + kTileFloats;
    float* zeros = ring + ring_floats;
    std::fill_n(zeros, row_floats, 0.0f);
    for (int64_t item = begin; item < end; item++) {
      const int64_t n = item / blocks, first = item % blocks * kConvRowBlock;
      const int64_t last = std::min(first + kConvRowBlock, out_h);
      int64_t next = std::max<int64_t>(first * g.stride - g.top, 0);  // input row to be gathered
      for (int64_t oy = first; oy < last; oy++) {
        const int64_t origin = oy * g.stride - g.top;
        next = std::max(next, origin);
        for (; next < std::min(origin + g.kernel, g.h); next++) {
          gather_row<Image, Storage>(a, x + n * a.stride_n + next * a.stride_h, ring + next % g.kernel * row_floats);
        }
        for (int64_t t = 0; t < tiles; t++) {
          const int64_t ox = t * out_w / tiles;
          const int width = static_cast<int>((t + 1) * out_w / tiles - ox);
          for (int64_t ky = 0; ky < g.kernel; ky++) {
            const int64_t iy = origin + ky;
            const float* row = iy < 0 || iy >= g.h ? zeros : ring + iy % g.kernel * row_floats;
            taps[ky] = row + ox * g.stride * g.c;
          }
          const Rows<float> operand{taps, g.kernel, g.kernel * g.c, g.stride * g.c};
          for (int64_t p = 0; p < panels.count; p++) {
            const int vectors = panels.width_of(p);
            const int64_t column = panels.first_vector(p) * Vec::kWidth;
            multiply_for<float>(width, vectors)(operand, panels.weights_of(p), panels.bias + column, tile,
                                                vectors * Vec::kWidth);
            const int64_t at = ((n * out_h + oy) * out_w + ox) * columns + column;
            finish_tile(tile, width, vectors, columns - column, a.activation, y + at,
                        residual ? residual + at : nullptr, columns);
          }
        }
      }
    }
  });
}

template <class Storage>
static void conv_to(const ConvArgs& a, const Parallel& parallel) {
  switch (a.image_dtype) {
    case DType::kFloat32: return conv_as<float, Storage>(a, parallel);
    case DType::kFloat16: return conv_as<float16, Storage>(a, parallel);
    case DType::kBFloat16: return conv_as<bfloat16, Storage>(a, parallel);
    case DType::kUInt8: return conv_as<uint8_t, Storage>(a, parallel);
  }
}

static void conv(const ConvArgs& a, const Parallel& parallel) {
  switch (a.dtype) {
    case DType::kFloat32: return conv_to<float>(a, parallel);
    case DType::kFloat16: return conv_to<float16>(a, parallel);
    case DType::kBFloat16: return conv_to<bfloat16>(a, parallel);
    case DType::kUInt8: return;
  }
}
