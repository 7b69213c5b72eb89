// expand_depthwise and expand_depthwise_pool: a 1x1 expansion with its activation, and the depthwise convolution of it,
// without the expanded tensor. Included inside an instruction set's namespace.
//
// The ring of depthwise_conv.h is filled by matrix products instead of copies: 48 expanded channels of an input row at
// a time, in float32, never stored elsewhere. The zeros of the padding are the ring's, after the activation.
#pragma once

// Activates `rows` ring pixels in place.
static void activate_ring(float* pixels, int rows, int vectors, int64_t pixel_floats, Activation activation) {
  with_activation(activation, [&]<Activation kActivation>() {
    for (int i = 0; i < rows; i++) {
      for (int j = 0; j < vectors; j++) {
        float* at = pixels + i * pixel_floats + j * Vec::kWidth;
        store(at, activate<kActivation, float>(load(at)));
      }
    }
  });
}

template <class Storage, class Element>
static void expand_depthwise_as(const ExpandDepthwiseArgs& a, const Parallel& parallel) {
  const ConvGeometry& g = a.depthwise.geometry;
  const Panels panels(*a.expand);
  const Chunks chunks(g.c);
  const int64_t depth = a.expand->in_channels, tiles = ceil_div(g.w, kTileRows);
  const Storage* x = static_cast<const Storage*>(a.x);
  // Few weights stay in the cache while an image's chunks are walked; many are better kept over several images.
  const bool images_outermost = panels.bytes() <= kPanelGroupBytes;
  const bool silu = a.expand_activation == Activation::kSilu;

  depthwise_over_ring<Storage>(
      a.depthwise, parallel, images_outermost, kTileRows * depth,
      [&](int64_t n, int64_t iy, int64_t chunk, float* pixels, float* scratch) {
        const int64_t origin = chunks.first_vector(chunk);
        const int64_t pixel_floats = (chunks.first_vector(chunk + 1) - origin) * Vec::kWidth;
        Element* prepared = reinterpret_cast<Element*>(scratch);
        for (int64_t t = 0; t < tiles; t++) {
          const int64_t first = t * g.w / tiles;
          const int height = static_cast<int>((t + 1) * g.w / tiles - first);
          const Storage* rows = x + ((n * g.h + iy) * g.w + first) * depth;
          const Element* left = reinterpret_cast<const Element*>(rows);
          if constexpr (!std::is_same_v<Storage, Element>) {
            for (int i = 0; i < height; i++) prepare_row(rows + i * depth, nullptr, depth, prepared + i * depth);
            left = prepared;
          }
          const Rows<Element> operand{&left, 1, depth, depth};
          for (int64_t p = chunks.first_panel(chunk); p < chunks.first_panel(chunk + 1); p++) {
            const int vectors = panels.width_of(p);
            const int64_t vector = panels.first_vector(p);
            float* to = pixels + first * pixel_floats + (vector - origin) * Vec::kWidth;
            // SiLU, the family's own, is applied in the registers; the cheap activations go over the ring once more.
            const auto multiply = silu ? multiply_for<Element, Activation::kSilu>(height, vectors)
                                       : multiply_for<Element>(height, vectors);
            multiply(operand, panels.weights_of(p), panels.bias + vector * Vec::kWidth, to, pixel_floats);
            if (!silu) activate_ring(to, height, vectors, pixel_floats, a.expand_activation);
          }
        }
      });
}

static void expand_depthwise(const ExpandDepthwiseArgs& a, const Parallel& parallel) {
  switch (a.depthwise.dtype) {
    case DType::kFloat32: return expand_depthwise_as<float, float>(a, parallel);
    case DType::kFloat16: return expand_depthwise_as<float16, float>(a, parallel);
    case DType::kBFloat16:
#ifdef EFFNET_FAST_HAS_BF16_DOT
      if (a.expand->bf16_pairs) return expand_depthwise_as<bfloat16, bfloat16>(a, parallel);
#endif
      return expand_depthwise_as<bfloat16, float>(a, parallel);
    case DType::kUInt8: return;
  }
}
