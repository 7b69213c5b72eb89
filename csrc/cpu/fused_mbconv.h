// fused_mbconv: EfficientNetV2's FusedMBConv block, a tile of output pixels at a time. Included inside an instruction
// set's namespace.
//
//   x [h w][C] --padded--> ring of input rows --k x k, activation--> expanded [tile's pixels][M]    stays in the L2
//   y [oh ow][O] = expanded --project--> + bias + x
//
// A tile (fused_mbconv_shape.h) is a part of one output row, or a few whole rows. Its pixels are expanded over all M
// channels into memory of the thread and projected from there at once: the expanded map, four times as large as the
// block's output, is neither written to memory nor read. Every value is summed as dense_conv and pointwise_conv sum
// it, so that float32 results are theirs to the bit, and nobody's split of the work changes one.
#pragma once

// Storage: type of x and y. Pixel: type that the expansion multiplies, hence of the ring. Hidden: type that the
// projection multiplies, hence of the expanded tile.
template <class Storage, class Pixel, class Hidden>
struct FusedMBConv {
  const FusedMBConvArgs& a;
  const ConvGeometry g;  // with the channels of a pixel of the ring
  const Panels expand, project;
  const FusedMBConvShape shape;
  static_assert(sizeof(Piece<Pixel>) == FusedMBConvShape::kPieceBytes);

  explicit FusedMBConv(const FusedMBConvArgs& a)
      : a(a), g(stored(a.geometry, *a.expand)), expand(*a.expand), project(*a.project), shape(g, expand.columns) {}

  static ConvGeometry stored(ConvGeometry g, const PackedHeader& expand) {
    g.c = stored_channels(expand);
    return g;
  }

  // One input row between the zeros of the padding, in the type that is multiplied.
  void gather(const Storage* row, Pixel* padded) const {
    Pixel* pixels = padded + g.left * g.c;
    std::memset(padded, 0, g.left * g.c * sizeof(Pixel));
    std::memset(pixels + g.w * g.c, 0, g.right * g.c * sizeof(Pixel));
    if constexpr (std::is_same_v<Storage, Pixel>) {
      copy_pixels(row, a.geometry.c, g.w, pixels, g.c);
    } else {
      prepare_row<Storage, Pixel>(row, nullptr, g.w * g.c, pixels);
    }
  }

  // A thread's memory for its tasks: `next` is the first row of image `image` that was not gathered into the ring yet.
  struct Task {
    Piece<Pixel>* pieces;  // [rows][kernel]
    Pixel *ring, *zeros;
    Hidden* expanded;
    int64_t image = -1, next = 0;
    MatrixUnit unit;
  };

  void prepare(Task& task) const {
    char* memory = static_cast<char*>(thread_scratch(shape.task_bytes(sizeof(Pixel), sizeof(Hidden))));
    task.pieces = reinterpret_cast<Piece<Pixel>*>(memory);
    task.ring = reinterpret_cast<Pixel*>(memory + shape.pieces_bytes);
    task.zeros = task.ring + shape.ring_rows * shape.row_elements;
    task.expanded = reinterpret_cast<Hidden*>(memory + shape.pieces_bytes + shape.ring_bytes(sizeof(Pixel)));
    std::memset(task.zeros, 0, shape.row_elements * sizeof(Pixel));
  }

  // Output rows [first, last) of image `n`. What the block before left in the ring is used again.
  void compute(Task& task, int64_t n, int64_t first, int64_t last) const {
    const int64_t rows = last - first, out_w = g.out_w(), origin = first * g.stride - g.top;
    if (task.image != n) task.next = 0;
    task.image = n;
    task.next = std::max(task.next, origin);
    for (; task.next < std::min(origin + (rows - 1) * g.stride + g.kernel, g.h); task.next++) {
      gather(static_cast<const Storage*>(a.x) + (n * g.h + task.next) * g.w * a.geometry.c, ring_row(task, task.next));
    }
    for (int64_t tile = 0; tile < shape.tiles; tile++) {
      const int64_t column = tile * out_w / shape.tiles, width = (tile + 1) * out_w / shape.tiles - column;
      for (int64_t i = 0; i < rows * g.kernel; i++) {
        const int64_t iy = origin + i / g.kernel * g.stride + i % g.kernel;
        const Pixel* row = iy < 0 || iy >= g.h ? task.zeros : ring_row(task, iy);
        task.pieces[i] = {row + column * g.stride * g.c, g.kernel * g.c, g.stride * g.c};
      }
      // A panel of weights outermost, so that each is fetched once a tile where they do not fit in the L2.
      for (int64_t p = 0; p < expand.count; p++) {
        for (int64_t r = 0; r < rows; r++) {
          output_rows<Hidden, Pixel>(task.unit, task.pieces + r * g.kernel, g.kernel, 0, width, expand, expand.weight,
                                     p, p + 1, a.activation, task.expanded + r * width * expand.columns, nullptr);
        }
      }
      const Piece<Hidden> expanded{task.expanded, expand.columns, expand.columns};
      const int64_t at = ((n * g.out_h() + first) * out_w + column) * project.columns;
      output_rows<Storage, Hidden>(task.unit, &expanded, 1, 0, rows * width, project, project.weight, 0, project.count,
                                   Activation::kIdentity, static_cast<Storage*>(a.y) + at,
                                   a.residual ? static_cast<const Storage*>(a.x) + at : nullptr);
    }
  }

  Pixel* ring_row(const Task& task, int64_t iy) const { return task.ring + iy % shape.ring_rows * shape.row_elements; }

  void run(const Parallel& parallel) const {
    parallel(g.n * shape.blocks, [&](int64_t begin, int64_t end) {
      Task task;
      prepare(task);
      for (int64_t item = begin; item < end; item++) {
        const int64_t block = item % shape.blocks;
        compute(task, item / shape.blocks, block * g.out_h() / shape.blocks, (block + 1) * g.out_h() / shape.blocks);
      }
    });
  }
};

static void fused_mbconv(const FusedMBConvArgs& a, const Parallel& parallel) {
  switch (a.dtype) {
    case DType::kFloat32: return FusedMBConv<float, float, float>(a).run(parallel);
    case DType::kFloat16: return FusedMBConv<float16, float, float>(a).run(parallel);
    case DType::kBFloat16:
#ifdef EFFNET_FAST_HAS_BF16_DOT
      // Each product has pairs where its own number of input channels is even.
      if (a.expand->bf16_pairs && a.project->bf16_pairs) {
        return FusedMBConv<bfloat16, bfloat16, bfloat16>(a).run(parallel);
      }
      if (a.expand->bf16_pairs) return FusedMBConv<bfloat16, bfloat16, float>(a).run(parallel);
      if (a.project->bf16_pairs) return FusedMBConv<bfloat16, float, bfloat16>(a).run(parallel);
#endif
      return FusedMBConv<bfloat16, float, float>(a).run(parallel);
    case DType::kUInt8: return;
  }
}
