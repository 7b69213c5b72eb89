// head_pool: mean over the pixels of activation(x @ weight + bias); the map is never stored.
// Included inside an instruction set's namespace.
#pragma once

// Adds rows [from, to) of every vector's tile, activated, to its sums; vectors of a tile lie `vector_floats` apart.
static void add_activated(Activation activation, const float* tile, int64_t vector_floats, int vectors, int64_t from,
                          int64_t to, float* sums) {
  with_activation(activation, [&]<Activation kActivation>() {
    for (int j = 0; j < vectors; j++) {
      Vec sum = load(sums + j * Vec::kWidth);
      for (int64_t i = from; i < to; i++) {
        sum = add(sum, activate<kActivation, float>(load(tile + j * vector_floats + i * Vec::kWidth)));
      }
      store(sums + j * Vec::kWidth, sum);
    }
  });
}

#ifdef EFFNET_FAST_HAS_AMX
// Adds to `sums` the activated values of an image's pixels, x [pixels][C], over panels [first_panel, last_panel).
static void pool_by_unit(MatrixUnit& unit, const HeadPoolArgs& a, const Panels& panels, const bfloat16* x,
                         int64_t first_panel, int64_t last_panel, float* sums) {
  alignas(64) float products[kUnitVectors * kUnitRows * Vec::kWidth];
  const Piece<bfloat16> piece{x, a.packed->in_channels, a.packed->in_channels};
  const UnitTiles tiles(a.pixels);
  const int64_t origin = panels.first_vector(first_panel);
  unit.shape(tiles.height, rest_terms(&piece, 1));
  for (int64_t p = first_panel; p < last_panel; p++) {
    const int vectors = panels.width_of(p);
    const int64_t vector = panels.first_vector(p);
    int64_t row = 0;  // the first that is not added yet
    for (int64_t t = 0; t < tiles.count; t++) {
      const int64_t first = tiles.first(t);
      multiply_by_unit(&piece, 1, first, panels.weights_of(p), vectors, panels.bias + vector * Vec::kWidth, products,
                       kUnitRows * Vec::kWidth);
      add_activated(a.activation, products, kUnitRows * Vec::kWidth, vectors, row - first, tiles.height,
                    sums + (vector - origin) * Vec::kWidth);
      row = first + tiles.height;
    }
  }
}
#endif

// The same by vector instructions. `scratch` has pool_scratch(depth) floats.
static int64_t pool_scratch(int64_t depth) { return kTileFloats + kTileRows * depth + Vec::kWidth; }

template <class Storage, class Element>
static void pool_by_vectors(const HeadPoolArgs& a, const Panels& panels, const Storage* x, int64_t first_panel,
                            int64_t last_panel, float* scratch, float* sums) {
  const int64_t depth = a.packed->in_channels, tiles = ceil_div(a.pixels, kTileRows);
  const int64_t origin = panels.first_vector(first_panel);
  float* tile = scratch;
  Element* prepared = reinterpret_cast<Element*>(scratch + kTileFloats);
  for (int64_t t = 0; t < tiles; t++) {
    const int64_t first = t * a.pixels / tiles;
    const int height = static_cast<int>((t + 1) * a.pixels / tiles - first);
    const Element* left = as_operand(x + first * depth, height, depth, prepared);
    const Rows<Element> operand{&left, 1, depth, depth};
    for (int64_t p = first_panel; p < last_panel; p++) {
      const int vectors = panels.width_of(p);
      const int64_t vector = panels.first_vector(p);
      multiply_for<Element>(height, vectors)(operand, panels.weights_of(p), panels.bias + vector * Vec::kWidth, tile,
                                             height * Vec::kWidth);
      add_activated(a.activation, tile, height * Vec::kWidth, vectors, 0, height,
                    sums + (vector - origin) * Vec::kWidth);
    }
  }
}

template <class Storage, class Element>
static void head_pool_as(const HeadPoolArgs& a, const Parallel& parallel) {
  const Panels panels(*a.packed);
  const int64_t depth = a.packed->in_channels;
  const int64_t groups = panels.groups(a.images, parallel.threads);
  const Storage* x = static_cast<const Storage*>(a.x);
  const float scale = 1.0f / static_cast<float>(a.pixels);

  // An image's sums are added in the order of its pixels by one thread, so they do not depend on the thread count.
  parallel(groups * a.images, [&](int64_t begin, int64_t end) {
    const int64_t sum_floats = (ceil_div(panels.count, groups) + 1) * panels.most * Vec::kWidth;
    float* sums = static_cast<float*>(thread_scratch(sizeof(float) * (sum_floats + pool_scratch(depth))));
    [[maybe_unused]] MatrixUnit unit;
    for (int64_t item = begin; item < end; item++) {
      const int64_t group = item / a.images, image = item % a.images;
      const int64_t first_panel = group * panels.count / groups, last_panel = (group + 1) * panels.count / groups;
      const int64_t origin = panels.first_vector(first_panel) * Vec::kWidth;
      const Storage* pixels = x + image * a.pixels * depth;
      std::fill_n(sums, sum_floats, 0.0f);
#ifdef EFFNET_FAST_HAS_AMX
      if constexpr (std::is_same_v<Element, bfloat16>) {
        pool_by_unit(unit, a, panels, pixels, first_panel, last_panel, sums);
      } else
#endif
      {
        pool_by_vectors<Storage, Element>(a, panels, pixels, first_panel, last_panel, sums + sum_floats, sums);
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
