// head_pool: mean over the pixels of activation(x @ weight + bias); the map is never stored.
// Included inside an instruction set's namespace.
#pragma once

template <class Storage, class Element>
static void head_pool_as(const HeadPoolArgs& a, const Parallel& parallel) {
  const Panels panels(*a.packed);
  const int64_t depth = a.packed->in_channels;
  const int64_t tiles = ceil_div(a.pixels, kTileRows);
  const int64_t groups = panels.groups(a.images, parallel.threads);
  const Storage* x = static_cast<const Storage*>(a.x);
  const float scale = 1.0f / static_cast<float>(a.pixels);

  // An image's sums are added in the order of its pixels by one thread, so they do not depend on the thread count.
  parallel(groups * a.images, [&](int64_t begin, int64_t end) {
    const int64_t sum_floats = (ceil_div(panels.count, groups) + 1) * kPanelVectors * Vec::kWidth;
    float* tile = static_cast<float*>(
        thread_scratch(sizeof(float) * (kTileFloats + sum_floats + kTileRows * depth + Vec::kWidth)));
    float* sums = tile + kTileFloats;
    Element* prepared = reinterpret_cast<Element*>(sums + sum_floats);
    for (int64_t item = begin; item < end; item++) {
      const int64_t group = item / a.images, image = item % a.images;
      const int64_t first_panel = group * panels.count / groups, last_panel = (group + 1) * panels.count / groups;
      const int64_t origin = panels.first_vector(first_panel) * Vec::kWidth;
      std::fill_n(sums, sum_floats, 0.0f);
      for (int64_t t = 0; t < tiles; t++) {
        const int64_t first = t * a.pixels / tiles;
        const int height = static_cast<int>((t + 1) * a.pixels / tiles - first);
        const Storage* rows = x + (image * a.pixels + first) * depth;
        const Element* left = reinterpret_cast<const Element*>(rows);
        if constexpr (!std::is_same_v<Storage, Element>) {
          for (int i = 0; i < height; i++) prepare_row(rows + i * depth, nullptr, depth, prepared + i * depth);
          left = prepared;
        }
        const Rows<Element> operand{&left, 1, depth, depth};
        for (int64_t p = first_panel; p < last_panel; p++) {
          const int vectors = panels.width_of(p);
          const int64_t column = panels.first_vector(p) * Vec::kWidth;
          multiply_for<Element>(height, vectors)(operand, panels.weights_of(p), panels.bias + column, tile,
                                                 height * Vec::kWidth);
          with_activation(a.activation, [&]<Activation kActivation>() {
            for (int j = 0; j < vectors; j++) {
              Vec sum = load(sums + column - origin + j * Vec::kWidth);
              for (int i = 0; i < height; i++) {
                sum = add(sum, activate<kActivation, float>(load(tile + (j * height + i) * Vec::kWidth)));
              }
              store(sums + column - origin + j * Vec::kWidth, sum);
            }
          });
        }
      }
      const int64_t stop = std::min(panels.first_vector(last_panel) * Vec::kWidth, panels.columns);
      float* y = a.y + image * panels.columns;
      for (int64_t c = origin; c < stop; c++) y[c] = sums[c - origin] * scale;
    }
  });
}

static void head_pool(const HeadPoolArgs& a, const Parallel& parallel) {
  switch (a.dtype) {
    case DType::kFloat32: return head_pool_as<float, float>(a, parallel);
    case DType::kFloat16: return head_pool_as<float16, float>(a, parallel);
    case DType::kBFloat16:
#ifdef EFFNET_FAST_HAS_BF16_DOT
      if (a.packed->bf16_pairs) return head_pool_as<bfloat16, bfloat16>(a, parallel);
#endif
      return head_pool_as<bfloat16, float>(a, parallel);
    case DType::kUInt8: return;
  }
}
