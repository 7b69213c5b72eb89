// pointwise_conv: y = activation(x * gate @ weight + bias) + residual over pixels in NHWC.
// Included inside an instruction set's namespace.
#pragma once

// Storage: type of x, residual and y. Element: type that is multiplied (bfloat16 pairs where the packing has them).
template <class Storage, class Element>
static void pointwise_conv_as(const PointwiseConvArgs& a, const Parallel& parallel) {
  const Panels panels(*a.packed);
  const int64_t depth = a.packed->in_channels, columns = panels.columns;
  const int64_t rows = a.images * a.pixels;
  const int64_t tiles = ceil_div(rows, kTileRows);
  const int64_t groups = panels.groups(tiles, parallel.threads);
  const Storage* x = static_cast<const Storage*>(a.x);
  const Storage* residual = static_cast<const Storage*>(a.residual);
  Storage* y = static_cast<Storage*>(a.y);
  const bool direct = std::is_same_v<Storage, Element> && !a.gate;

  // Group outermost: a thread walks many row tiles over the same weights, which stay in its L2.
  parallel(groups * tiles, [&](int64_t begin, int64_t end) {
    float* tile = static_cast<float*>(thread_scratch(sizeof(float) * (kTileFloats + kTileRows * depth + Vec::kWidth)));
    Element* prepared = reinterpret_cast<Element*>(tile + kTileFloats);
    for (int64_t item = begin; item < end; item++) {
      const int64_t group = item / tiles, t = item % tiles;
      const int64_t first = t * rows / tiles;  // tiles of equal height: 49 rows are 7 x 7, not 6 x 8 + 1
      const int height = static_cast<int>((t + 1) * rows / tiles - first);
      const Element* left = reinterpret_cast<const Element*>(x + first * depth);
      if (!direct) {
        for (int i = 0; i < height; i++) {
          const int64_t row = first + i;
          const float* gate = a.gate ? a.gate + row / a.pixels * depth : nullptr;
          prepare_row(x + row * depth, gate, depth, prepared + i * depth);
        }
        left = prepared;
      }
      const Rows<Element> operand{&left, 1, depth, depth};
      for (int64_t p = group * panels.count / groups; p < (group + 1) * panels.count / groups; p++) {
        const int vectors = panels.width_of(p);
        const int64_t column = panels.first_vector(p) * Vec::kWidth;
        multiply_for<Element>(height, vectors)(operand, panels.weights_of(p), panels.bias + column, tile,
                                               vectors * Vec::kWidth);
        const int64_t at = first * columns + column;
        finish_tile(tile, height, vectors, columns - column, a.activation, y + at, residual ? residual + at : nullptr,
                    columns);
      }
    }
  });
}

static void pointwise_conv(const PointwiseConvArgs& a, const Parallel& parallel) {
  switch (a.dtype) {
    case DType::kFloat32: return pointwise_conv_as<float, float>(a, parallel);
    case DType::kFloat16: return pointwise_conv_as<float16, float>(a, parallel);
    case DType::kBFloat16:
#ifdef EFFNET_FAST_HAS_BF16_DOT
      if (a.packed->bf16_pairs) return pointwise_conv_as<bfloat16, bfloat16>(a, parallel);
#endif
      return pointwise_conv_as<bfloat16, float>(a, parallel);
    case DType::kUInt8: return;
  }
}
