// pointwise_conv: y = activation(x * gate @ weight + bias) + residual over pixels in NHWC.
// Included inside an instruction set's namespace.
#pragma once

// Rows that are converted or scaled at a time, before every panel is multiplied with them.
inline constexpr int64_t kPreparedRows = 4 * kTileRows;

// Storage: type of x, residual and y. Element: what is multiplied (Product), pairs where the packing has them.
template <class Storage, class Element>
static void pointwise_conv_as(const PointwiseConvArgs& a, const Parallel& parallel) {
  const Panels panels(*a.packed);
  const int64_t depth = a.packed->in_channels;
  const int64_t rows = a.images * a.pixels, tiles = ceil_div(rows, kTileRows);
  const int64_t groups = panels.groups(tiles, parallel.threads);
  const Storage* x = static_cast<const Storage*>(a.x);
  const Storage* residual = static_cast<const Storage*>(a.residual);
  Storage* y = static_cast<Storage*>(a.y);
  using Value = typename Product<Element>::Value;
  const bool direct = std::is_same_v<Storage, Value> && !a.gate;

  // Group outermost: a thread walks many row tiles over the same weights, which stay in its L2.
  parallel(groups * tiles, [&](int64_t begin, int64_t end) {
    MatrixUnit unit;
    Element* prepared = static_cast<Element*>(thread_scratch(sizeof(float) * (kPreparedRows * depth + Vec::kWidth)));
    for (int64_t item = begin; item < end;) {
      const int64_t group = item / tiles, stop = std::min(end, (group + 1) * tiles);
      const int64_t first = item % tiles * rows / tiles, last = (stop - group * tiles) * rows / tiles;
      const int64_t first_panel = group * panels.count / groups, last_panel = (group + 1) * panels.count / groups;
      item = stop;
      const int64_t step = direct ? last - first : kPreparedRows;
      for (int64_t row = first; row < last; row += step) {
        const int64_t until = std::min(row + step, last);
        Piece<Element> piece{reinterpret_cast<const Element*>(x) + row * depth, depth, depth};
        if (!direct) {
          for (int64_t i = row; i < until; i++) {
            const float* gate = a.gate ? a.gate + i / a.pixels * depth : nullptr;
            prepare_row(x + i * depth, gate, depth, reinterpret_cast<Value*>(prepared) + (i - row) * depth);
          }
          piece.data = prepared;
        }
        const int64_t at = row * panels.columns;
        output_rows<Storage, Element>(unit, &piece, 1, 0, until - row, panels, panels.weight, first_panel, last_panel,
                                      a.activation, y + at, residual ? residual + at : nullptr);
      }
    }
  });
}

static void pointwise_conv(const PointwiseConvArgs& a, const Parallel& parallel) {
  switch (a.dtype) {
    case DType::kFloat32:
#ifdef EFFNET_FAST_HAS_PAIRS
      if (a.packed->bf16_values) return pointwise_conv_as<float, FloatByBf16>(a, parallel);
#endif
      return pointwise_conv_as<float, float>(a, parallel);
    case DType::kFloat16: return pointwise_conv_as<float16, float>(a, parallel);
    case DType::kBFloat16:
#ifdef EFFNET_FAST_HAS_BF16_DOT
      if (a.packed->bf16_pairs) return pointwise_conv_as<bfloat16, bfloat16>(a, parallel);
#endif
      return pointwise_conv_as<bfloat16, float>(a, parallel);
    case DType::kUInt8: return;
  }
}
