// dense_conv and stem_conv: a k x k convolution over all channels, as a matrix product over a ring of padded rows.
// Included inside an instruction set's namespace.
#pragma once

// Output rows of one task. Each task converts kernel - stride input rows again, so not too few; batch 1 wants many.
inline constexpr int64_t kConvRowBlock = 8;

// Rounded to Storage and back: a 16-bit result wants 16-bit products, as a separate normalisation would have stored.
template <class Storage>
static void round_row(float* values, int64_t count) {
  if constexpr (!std::is_same_v<Storage, float>) {
    Storage rounded[Vec::kWidth];
    int64_t i = 0;
    for (; i + Vec::kWidth <= count; i += Vec::kWidth) {
      store(rounded, load(values + i));
      store(values + i, load(rounded));
    }
    for (; i < count; i++) values[i] = to_float(from_float<Storage>(values[i]));
  }
}

// (pixel * unit - mean) * inverse_std of interleaved channels. The constants of three channels repeat every three
// vectors.
static void normalise_row(const ConvArgs& a, int64_t count, float* pixels) {
  const int64_t channels = a.geometry.c;
  int64_t i = 0;
  if (channels == 3) {
    float mean[3 * Vec::kWidth], inverse_std[3 * Vec::kWidth];
    for (int lane = 0; lane < 3 * Vec::kWidth; lane++) {
      mean[lane] = -a.mean[lane % 3];
      inverse_std[lane] = a.inverse_std[lane % 3];
    }
    const Vec unit = set1(a.unit);
    for (; i + 3 * Vec::kWidth <= count; i += 3 * Vec::kWidth) {
      for (int lane = 0; lane < 3 * Vec::kWidth; lane += Vec::kWidth) {
        const Vec centred = add(mul(load(pixels + i + lane), unit), load(mean + lane));
        store(pixels + i + lane, mul(centred, load(inverse_std + lane)));
      }
    }
  }
  for (; i < count; i++) {
    const int64_t c = i % channels;
    pixels[i] = (pixels[i] * a.unit - a.mean[c]) * a.inverse_std[c];
  }
}

// The channels of one input row, interleaved and normalised. Photographs have three channels, in planes or interleaved
// already: the compiler makes vectors and shuffles of those loops.
template <class Image>
static void interleave_row(const ConvArgs& a, const Image* row, float* pixels) {
  const int64_t channels = a.geometry.c, width = a.geometry.w;
  if (a.stride_c == 1 && a.stride_w == channels) {
    for (int64_t i = 0; i < width * channels; i++) pixels[i] = to_float(row[i]);
  } else if (a.stride_w == 1 && channels == 3) {
    const Image *r = row, *g = row + a.stride_c, *b = row + 2 * a.stride_c;
    for (int64_t x = 0; x < width; x++) {
      pixels[3 * x] = to_float(r[x]);
      pixels[3 * x + 1] = to_float(g[x]);
      pixels[3 * x + 2] = to_float(b[x]);
    }
  } else {
    for (int64_t x = 0; x < width; x++) {
      for (int64_t c = 0; c < channels; c++) pixels[x * channels + c] = to_float(row[x * a.stride_w + c * a.stride_c]);
    }
  }
  if (a.mean) normalise_row(a, width * channels, pixels);
}

// `width` pixels of x, `channels` values each, to y, `step` values each: as many, or one more that is zero.
template <class Element>
static void copy_pixels(const Element* x, int64_t channels, int64_t width, Element* y, int64_t step) {
  if (step == channels) {
    std::memcpy(y, x, width * channels * sizeof(Element));
    return;
  }
  int64_t i = 0;
#ifdef EFFNET_FAST_HAS_BF16_DOT
  if constexpr (std::is_same_v<Element, bfloat16>) {
    // A photograph's, eight at a time, which are read with the eight values that follow.
    for (; channels == 3 && i + 11 <= width; i += 8) store_widened_pixels(y + i * 4, x + i * 3);
  }
#endif
  for (; i < width; i++) {
    for (int64_t c = 0; c < channels; c++) y[i * step + c] = x[i * channels + c];
    y[i * step + channels] = from_float<Element>(0.0f);
  }
}

// One input row between the zeros of the padding, in the type that is multiplied, `step` values a pixel. Where that
// type has 16 bits, `floats` and `narrow` have room for a row.
template <class Image, class Storage, class Element>
static void gather_row(const ConvArgs& a, const Image* row, int64_t step, float* floats, Element* narrow,
                       Element* padded) {
  const ConvGeometry& g = a.geometry;
  Element* pixels = padded + g.left * step;
  std::memset(padded, 0, g.left * step * sizeof(Element));
  std::memset(pixels + g.w * step, 0, g.right * step * sizeof(Element));
  if constexpr (std::is_same_v<Image, Element> && std::is_same_v<Image, Storage>) {
    if (!a.mean && a.stride_c == 1 && a.stride_w == g.c) return copy_pixels(row, g.c, g.w, pixels, step);
  }
  if constexpr (std::is_same_v<Element, float>) {
    interleave_row(a, row, pixels);
    round_row<Storage>(pixels, g.w * g.c);
  } else {
    interleave_row(a, row, floats);
    prepare_row<float, Element>(floats, nullptr, g.w * g.c, narrow);
    copy_pixels(narrow, g.c, g.w, pixels, step);
  }
}

template <class Image, class Storage, class Element>
static void conv_as(const ConvArgs& a, const Parallel& parallel) {
  const ConvGeometry& g = a.geometry;
  const Panels panels(*a.packed);
  const int64_t out_h = g.out_h(), out_w = g.out_w(), step = stored_channels(*a.packed);
  const int64_t blocks = ceil_div(out_h, kConvRowBlock), row_elements = (g.left + g.w + g.right) * step;
  const int64_t gathered = std::is_same_v<Element, float> ? 0 : ceil_div(g.w * g.c, 32) * 32;  // values of a row
  const Image* x = static_cast<const Image*>(a.x);
  const Storage* residual = static_cast<const Storage*>(a.residual);
  Storage* y = static_cast<Storage*>(a.y);

  parallel(g.n * blocks, [&](int64_t begin, int64_t end) {
    MatrixUnit unit;
    const int64_t piece_bytes = ceil_div(g.kernel * static_cast<int64_t>(sizeof(Piece<Element>)), 64) * 64;
    const int64_t gathered_bytes = gathered * static_cast<int64_t>(sizeof(float) + sizeof(Element));
    char* scratch = static_cast<char*>(
        thread_scratch(piece_bytes + gathered_bytes + (g.kernel + 1) * row_elements * sizeof(Element)));
    Piece<Element>* pieces = reinterpret_cast<Piece<Element>*>(scratch);
    float* floats = reinterpret_cast<float*>(scratch + piece_bytes);
    Element* narrow = reinterpret_cast<Element*>(floats + gathered);
    Element* ring = reinterpret_cast<Element*>(scratch + piece_bytes + gathered_bytes);
    Element* zeros = ring + g.kernel * row_elements;
    std::memset(zeros, 0, row_elements * sizeof(Element));
    for (int64_t item = begin; item < end; item++) {
      const int64_t n = item / blocks, first = item % blocks * kConvRowBlock;
      const int64_t last = std::min(first + kConvRowBlock, out_h);
      int64_t next = std::max<int64_t>(first * g.stride - g.top, 0);  // input row to be gathered
      for (int64_t oy = first; oy < last; oy++) {
        const int64_t origin = oy * g.stride - g.top;
        next = std::max(next, origin);
        for (; next < std::min(origin + g.kernel, g.h); next++) {
          gather_row<Image, Storage>(a, x + n * a.stride_n + next * a.stride_h, step, floats, narrow,
                                     ring + next % g.kernel * row_elements);
        }
        for (int64_t ky = 0; ky < g.kernel; ky++) {
          const int64_t iy = origin + ky;
          pieces[ky] = {iy < 0 || iy >= g.h ? zeros : ring + iy % g.kernel * row_elements, g.kernel * step,
                        g.stride * step};
        }
        const int64_t at = (n * out_h + oy) * out_w * panels.columns;
        output_rows<Storage, Element>(unit, pieces, g.kernel, 0, out_w, panels, panels.weight, 0, panels.count,
                                      a.activation, y + at, residual ? residual + at : nullptr);
      }
    }
  });
}

template <class Image, class Storage>
static void conv_from(const ConvArgs& a, const Parallel& parallel) {
#ifdef EFFNET_FAST_HAS_BF16_DOT
  if constexpr (std::is_same_v<Storage, bfloat16>) {
    if (a.packed->bf16_pairs) return conv_as<Image, Storage, bfloat16>(a, parallel);
  }
#endif
  conv_as<Image, Storage, float>(a, parallel);
}

template <class Storage>
static void conv_to(const ConvArgs& a, const Parallel& parallel) {
  switch (a.image_dtype) {
    case DType::kFloat32: return conv_from<float, Storage>(a, parallel);
    case DType::kFloat16: return conv_from<float16, Storage>(a, parallel);
    case DType::kBFloat16: return conv_from<bfloat16, Storage>(a, parallel);
    case DType::kUInt8: return conv_from<uint8_t, Storage>(a, parallel);
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
