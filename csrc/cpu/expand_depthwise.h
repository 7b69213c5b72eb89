// expand_depthwise and expand_depthwise_pool: a 1x1 expansion with its activation, and the depthwise convolution of it,
// without the expanded tensor. Included inside an instruction set's namespace.
//
// The ring of depthwise_conv.h is filled by matrix products instead of copies: 48 expanded channels of an input row at
// a time, in float32, never stored elsewhere. The zeros of the padding are the ring's, after the activation.
#pragma once

// Activates `rows` ring pixels in place, as exactly as Precision needs it.
template <class Precision>
static void activate_ring(const RingRow& ring, int rows, int vectors, Activation activation) {
  with_activation(activation, [&]<Activation kActivation>() {
    for (int j = 0; j < vectors; j++) {
      for (int i = 0; i < rows; i++) {
        float* at = ring.pixels + j * ring.vector_floats + i * Vec::kWidth;
        store(at, activate<kActivation, Precision>(load(at)));
      }
    }
  });
}

// Floats of scratch that expand_row needs.
static int64_t expand_scratch(int64_t depth) { return kTileRows * depth + Vec::kWidth; }

template <class Storage, class Element>
static void expand_row_as(const PackedHeader& packed, Activation activation, const Storage* x, int64_t width,
                          const Chunks& chunks, int64_t chunk, float* scratch, const RingRow& to) {
  const Panels panels(packed);
  const int64_t depth = packed.in_channels, tiles = ceil_div(width, kTileRows);
  const int64_t origin = chunks.first_vector(chunk);
  // The family's own activations are applied in the registers; the others go over the ring once more.
  const bool silu = activation == Activation::kSilu, relu6 = activation == Activation::kRelu6;
  Element* prepared = reinterpret_cast<Element*>(scratch);
  for (int64_t t = 0; t < tiles; t++) {
    const int64_t first = t * width / tiles;
    const int height = static_cast<int>((t + 1) * width / tiles - first);
    const Element* left = as_operand(x + first * depth, height, depth, prepared);
    const Rows<Element> operand{&left, 1, depth, depth};
    for (int64_t p = chunks.first_panel(chunk); p < chunks.first_panel(chunk + 1); p++) {
      const int vectors = panels.width_of(p);
      const int64_t vector = panels.first_vector(p);
      const RingRow tile{to.pixels + (vector - origin) * to.vector_floats + first * Vec::kWidth, to.vector_floats};
      const auto multiply = silu    ? multiply_for<Element, Activation::kSilu>(height, vectors)
                            : relu6 ? multiply_for<Element, Activation::kRelu6>(height, vectors)
                                    : multiply_for<Element>(height, vectors);
      multiply(operand, panels.weights_of(p), panels.bias + vector * Vec::kWidth, tile.pixels, tile.vector_floats);
      if (!silu && !relu6) activate_ring<Element>(tile, height, vectors, activation);
    }
  }
}

#ifdef EFFNET_FAST_HAS_AMX
// The same by the matrix unit, which writes its sums into the ring; they are activated there.
static void expand_row_by_unit(MatrixUnit& unit, const PackedHeader& packed, Activation activation, const bfloat16* x,
                               int64_t width, const Chunks& chunks, int64_t chunk, const RingRow& to) {
  const Panels panels(packed);
  const Piece<bfloat16> row{x, packed.in_channels, packed.in_channels};
  const UnitTiles tiles(width);
  const int64_t origin = chunks.first_vector(chunk);
  unit.shape(tiles.height, rest_terms(&row, 1));
  for (int64_t p = chunks.first_panel(chunk); p < chunks.first_panel(chunk + 1); p++) {
    const int vectors = panels.width_of(p);
    const int64_t vector = panels.first_vector(p);
    for (int64_t t = 0; t < tiles.count; t++) {
      const int64_t first = tiles.first(t);
      const RingRow tile{to.pixels + (vector - origin) * to.vector_floats + first * Vec::kWidth, to.vector_floats};
      multiply_by_unit(&row, 1, first, panels.weights_of(p), vectors, panels.bias + vector * Vec::kWidth, tile.pixels,
                       tile.vector_floats);
      activate_ring<bfloat16>(tile, tiles.height, vectors, activation);
    }
  }
}
#endif

// The expanded and activated channels of `chunk` of one input row, x [width][C].
template <class Storage>
static void expand_row(MatrixUnit& unit, const PackedHeader& packed, Activation activation, const Storage* x,
                       int64_t width, const Chunks& chunks, int64_t chunk, float* scratch, const RingRow& to) {
#ifdef EFFNET_FAST_HAS_BF16_DOT
  if constexpr (std::is_same_v<Storage, bfloat16>) {
    if (packed.bf16_pairs) {
#ifdef EFFNET_FAST_HAS_AMX
      return expand_row_by_unit(unit, packed, activation, x, width, chunks, chunk, to);
#else
      return expand_row_as<Storage, bfloat16>(packed, activation, x, width, chunks, chunk, scratch, to);
#endif
    }
  }
#endif
  (void)unit;
  expand_row_as<Storage, float>(packed, activation, x, width, chunks, chunk, scratch, to);
}

template <class Storage>
static void expand_depthwise_as(const ExpandDepthwiseArgs& a, const Parallel& parallel) {
  const ConvGeometry& g = a.depthwise.geometry;
  const Chunks chunks(split_columns(*a.expand));
  const int64_t depth = a.expand->in_channels;
  const Storage* x = static_cast<const Storage*>(a.x);
  // Few weights stay in the cache while an image's chunks are walked; many are better kept over several images.
  const bool images_outermost = Panels(*a.expand).bytes() <= kPanelGroupBytes;
  depthwise_over_ring<Storage>(
      a.depthwise, chunks, parallel, images_outermost, expand_scratch(depth),
      [&](int64_t n, int64_t iy, int64_t chunk, const RingRow& to, float* scratch, MatrixUnit& unit) {
        expand_row(unit, *a.expand, a.expand_activation, x + (n * g.h + iy) * g.w * depth, g.w, chunks, chunk, scratch,
                   to);
      });
}

static void expand_depthwise(const ExpandDepthwiseArgs& a, const Parallel& parallel) {
  switch (a.depthwise.dtype) {
    case DType::kFloat32: return expand_depthwise_as<float>(a, parallel);
    case DType::kFloat16: return expand_depthwise_as<float16>(a, parallel);
    case DType::kBFloat16: return expand_depthwise_as<bfloat16>(a, parallel);
    case DType::kUInt8: return;
  }
}
