// mbconv: a whole mobile inverted bottleneck block, an image at a time. Included inside an instruction set's namespace.
//
//   x [h w][C] --expand--> ring of k rows, float32, 48 of M channels     never leaves the L1 and L2
//              --depthwise, activation, sums--> filtered [chunk][oh ow][48], sums [M]        (1)
//   gates [M] = squeeze-excite(sums)
//   y [oh ow][O] = filtered * gates --project--> + residual                                 (2)
//
// (1) takes 48 expanded channels (a chunk; 64 where a matrix unit multiplies) at a time: expands an input row of them
// into the ring, filters as soon as k rows are there, and activates and sums in the registers. (2) needs the gates,
// hence all sums, hence all of (1): the filtered image in between is the only tensor of the block that is stored, in
// this thread's own memory (B0: at most 1.8 MB in float32, mostly within the L2), in a layout in which both phases walk
// straight on.
//
// The gate scales whichever is smaller, the projection's weights (large maps) or the filtered image (small maps).
//
// Threads: images by thread as far as they divide, what is left over image by image with all threads on (1), then
// on (2). Sums are taken over a few rows at a time and added in order, so that no result depends on who computed it.
#pragma once

// Storage: type of x and y. Element: type that the projection multiplies, hence of the filtered image.
template <class Storage, class Element>
struct MBConv {
  const MBConvArgs& a;
  const ConvGeometry& g;
  const RingConv<Element, Storage> depthwise;
  const Chunks& chunks;
  const Panels project;
  const MBConvShape shape;
  const int64_t pixels, blocks, channels;  // as the shape's

  explicit MBConv(const MBConvArgs& a)
      : a(a),
        g(a.geometry),
        depthwise(g, chunks_of(a), *a.depthwise, a.activation, MBConvShape::kBlockRows),
        chunks(depthwise.chunks),
        project(*a.project),
        shape(g, project.columns, a.squeeze_excite != nullptr, Vec::kWidth, sizeof(Element)),
        pixels(shape.pixels),
        blocks(shape.blocks),
        channels(shape.channels) {}

  static Chunks chunks_of(const MBConvArgs& a) {
    return Chunks(a.expand ? split_columns(*a.expand) : split_columns(a.geometry.c, a.dtype, a.project->bf16_pairs));
  }

  // Consecutive images that are computed together, and the memory for what lies between the phases.
  struct Group {
    int64_t first, count;
    Element* filtered;  // [chunk][count * pixels][width of the chunk]
    float* sums;        // [count][blocks][channels]
  };

  Group group_of(int64_t first, int64_t count) const {
    char* memory = static_cast<char*>(thread_scratch(shape.workspace_bytes(count), kWorkspace));
    return {first, count, reinterpret_cast<Element*>(memory),
            reinterpret_cast<float*>(memory + shape.filtered_bytes(count))};
  }

  // Phase 1, tasks [begin, end) of chunks * count * blocks: see above.
  void expand_and_filter(const Group& group, int64_t begin, int64_t end) const {
    const int64_t depth = a.in_channels;
    const TapScratch scratch(g.kernel, depthwise.ring_floats + expand_scratch(depth));
    float* prepared = scratch.floats + depthwise.ring_floats;
    MatrixUnit unit;
    const Storage* x = static_cast<const Storage*>(a.x);
    for (int64_t item = begin; item < end;) {
      const int64_t first_block = item % blocks, last_block = std::min(first_block + end - item, blocks);
      const int64_t chunk = item / blocks / group.count, i = item / blocks % group.count;
      const Storage* image = x + (group.first + i) * g.h * g.w * depth;
      const int64_t width = chunks.width(chunk), origin = chunks.first_channel(chunk);
      item += last_block - first_block;
      depthwise.run(
          chunk, first_block, last_block, scratch, group.filtered + origin * group.count * pixels + i * pixels * width,
          width, width,
          [&](int64_t iy, const RingRow& to) {
            const Storage* row = image + iy * g.w * depth;
            if (a.expand) {
              expand_row(unit, *a.expand, a.activation, row, g.w, chunks, chunk, prepared, to);
            } else {
              copy_to_ring(row + origin, depth, g.w, std::min(depth - origin, width), to);
            }
          },
          [&](int64_t block, const Vec* sums) {
            float* to = group.sums + (i * blocks + block) * channels + origin;
            for (int64_t c = 0; c < width; c += Vec::kWidth) store(to + c, sums[c / Vec::kWidth]);
          });
    }
  }

  // Gates of every image of the group, [count][channels]; every thread computes them for itself.
  void open_gates(const Group& group, float* gates, float* scratch) const {
    for (int64_t i = 0; i < group.count; i++) {
      gates_of_image({*a.squeeze_excite, blocks, channels, pixels, a.se_activation, a.gate},
                     group.sums + i * blocks * channels, gates + i * channels, channels, scratch);
    }
  }
  int64_t gate_floats(int64_t images) const {
    return a.squeeze_excite ? images * channels + squeeze_excite_scratch(*a.squeeze_excite) : 0;
  }

  // Phase 2 where the gate scales the image: chunks [begin, end) of it, in place.
  void scale_filtered(const Group& group, int64_t begin, int64_t end) const {
    float* gates = static_cast<float*>(thread_scratch(sizeof(float) * gate_floats(group.count)));
    open_gates(group, gates, gates + group.count * channels);
    for (int64_t chunk = begin; chunk < end; chunk++) {
      const int64_t width = chunks.width(chunk), origin = chunks.first_channel(chunk);
      for (int64_t i = 0; i < group.count; i++) {
        Element* at = group.filtered + (origin * group.count + i * width) * pixels;
        for (int64_t c = 0; c < width; c += Vec::kWidth) {
          const Vec gate = load(gates + i * channels + origin + c);
          for (int64_t p = 0; p < pixels; p++) store(at + p * width + c, mul(load(at + p * width + c), gate));
        }
      }
    }
  }

  // Phase 2, parts [begin, end) of vectors * rows of y, a vector of columns after the other: y = filtered x weights +
  // bias + residual. Threads divide columns first, so that each reads (and scales) weights of its own: at batch 1 all
  // of them come from the L3.
  void project_part(const Group& group, int64_t begin, int64_t end) const {
    const int64_t rows = group.count * pixels, depth = a.project->in_channels;
    const int64_t weight_floats = shape.gate_weights ? project.bytes() / 4 : 0;
    const int64_t piece_floats = chunks.count * static_cast<int64_t>(sizeof(Piece<Element>) / 4);
    float* gated = static_cast<float*>(thread_scratch(sizeof(float) * (weight_floats + piece_floats + gate_floats(1))));
    Piece<Element>* pieces = reinterpret_cast<Piece<Element>*>(gated + weight_floats);
    for (int64_t chunk = 0; chunk < chunks.count; chunk++) {
      const int64_t width = chunks.width(chunk), origin = chunks.first_channel(chunk);
      pieces[chunk] = {group.filtered + origin * rows, std::min(width, depth - origin), width};
    }
    float* gates = gated + weight_floats + piece_floats;
    if (shape.gate_weights) open_gates(group, gates, gates + channels);  // the group is one image then
    const int64_t at = group.first * pixels * project.columns;
    MatrixUnit unit;
    for (int64_t p = 0; p < project.count; p++) {
      // This panel's rows of the part, by the vectors before it and its own.
      const int64_t before = project.first_vector(p) * rows, vectors = project.width_of(p);
      const int64_t first = std::clamp<int64_t>((begin - before) / vectors, 0, rows);
      const int64_t last = std::clamp<int64_t>((end - before) / vectors, 0, rows);
      if (first >= last) continue;
      const float* weight = project.weight;
      if (shape.gate_weights) {
        const int64_t offset = project.weights_of(p) - project.weight;
        scale_panel<Element>(project.weight + offset, project.width_of(p), depth, gates, gated + offset);
        weight = gated;
      }
      output_rows<Storage, Element>(unit, pieces, chunks.count, first, last, project, weight, p, p + 1,
                                    Activation::kIdentity, static_cast<Storage*>(a.y) + at,
                                    a.residual ? static_cast<const Storage*>(a.x) + at : nullptr);
    }
  }

  // A group with all its phases, each shared out by `parallel`.
  void compute(const Group& group, const Parallel& parallel) const {
    parallel(chunks.count * group.count * blocks,
             [&](int64_t begin, int64_t end) { expand_and_filter(group, begin, end); });
    if (a.squeeze_excite && !shape.gate_weights) {
      parallel(chunks.count, [&](int64_t begin, int64_t end) { scale_filtered(group, begin, end); });
    }
    parallel(project.vectors * group.count * pixels,
             [&](int64_t begin, int64_t end) { project_part(group, begin, end); });
  }

  void run(const Parallel& parallel) const {
    const Parallel alone{1, nullptr};
    const int64_t group = shape.group(), threads = parallel.threads, by_thread = shape.by_thread(threads);
    parallel(by_thread ? threads : 0, [&](int64_t begin, int64_t end) {
      const int64_t last = by_thread * end / threads;
      for (int64_t n = by_thread * begin / threads; n < last; n += group) {
        compute(group_of(n, std::min(group, last - n)), alone);
      }
    });
    for (int64_t n = by_thread; n < g.n; n += group) compute(group_of(n, std::min(group, g.n - n)), parallel);
  }
};

static void mbconv(const MBConvArgs& a, const Parallel& parallel) {
  switch (a.dtype) {
    case DType::kFloat32: return MBConv<float, float>(a).run(parallel);
    case DType::kFloat16: return MBConv<float16, float>(a).run(parallel);
    case DType::kBFloat16:
#ifdef EFFNET_FAST_HAS_BF16_DOT
      if (a.project->bf16_pairs) return MBConv<bfloat16, bfloat16>(a).run(parallel);
#endif
      return MBConv<bfloat16, float>(a).run(parallel);
    case DType::kUInt8: return;
  }
}
