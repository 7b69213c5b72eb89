// expand_depthwise: which kernel and which tiles a call gets. Pure functions of shapes and of the GPU; torch-free.
#pragma once

#include <algorithm>

#include "../common/geometry.h"
#include "launch.h"

namespace effnet_fast::cuda {

// What is compiled: see ExpandDepthwiseTraits. Chunks of 48 channels divide six times any input, and two blocks of 6
// warps keep their weights in registers; smaller ones are for tiles of which two do not fit otherwise, and for 5 x 5
// taps, which spill at 168 registers. 7 rows are for the 14, 28 and 56 of B0, 4 for all sizes.
struct ExpandDepthwiseVariant {
  int kernel, stride, chunk, rows;

  constexpr int warps() const { return chunk == 48 ? 6 : 4; }
  // Of a multiprocessor, by registers.
  constexpr int blocks() const { return chunk == 48 || (kernel == 5 && (rows > 4 || stride == 2)) ? 2 : 3; }
};
inline constexpr ExpandDepthwiseVariant kExpandDepthwiseVariants[] = {
    {3, 1, 48, 7}, {3, 1, 48, 4}, {3, 1, 32, 7}, {3, 1, 32, 4}, {3, 2, 48, 7},
    {3, 2, 48, 4}, {3, 2, 32, 4}, {5, 1, 16, 7}, {5, 1, 16, 4}, {5, 2, 32, 4},
};
inline constexpr int kExpandDepthwiseVariantCount =
    static_cast<int>(sizeof kExpandDepthwiseVariants / sizeof kExpandDepthwiseVariants[0]);
// Of activations other than SiLU, which no published EfficientNet has in these blocks.
constexpr bool is_for_any_activation(const ExpandDepthwiseVariant& v) {
  return v.rows == 4 && (v.kernel == 5 || v.chunk == 48);
}

inline constexpr int64_t kMostExpandInputs = 128;  // channels: 9 steps of weights in registers
// CUDA's own share of each block's shared memory.
inline constexpr int64_t kReservedSharedBytes = 1024;

struct ExpandDepthwiseShape {
  ConvGeometry geometry;  // of the depthwise convolution: c is the expanded channels
  int64_t in_channels;
  bool sums;
  int64_t multiprocessors, multiprocessor_shared_bytes;
};

// A kernel with its tiles.
struct ExpandDepthwisePlan {
  int variant = -1;  // of kExpandDepthwiseVariants; -1: none fits
  int64_t tile_rows = 0, tile_columns = 0;
  int64_t tiles_y = 0, tiles_x = 0;
  int64_t blocks = 0;  // of an image, each with every blocks-th tile
  int64_t chunks = 0, block_chunks = 0;
  int64_t in_rows = 0, pitch = 0, odd = 0;
  int64_t positions = 0, all_positions = 0, x_pitch = 0;
  int64_t groups = 0, bands = 0;
  int64_t shared_bytes = 0;
  int64_t resident = 0;  // blocks that share a multiprocessor
  double cycles = 0;     // of a multiprocessor for all images: a prediction, to compare tiles with

  int64_t places() const { return groups * bands; }
};

// Clock cycles of a multiprocessor. Rates: four instructions, 16 special functions and 128 bytes of shared memory a
// cycle, and 62 % of the tensor cores' 2048 multiply-adds, which mma.sync is said to reach on an H100 (published, not
// measured here); an mma of 8 instead of 16 counts half. Each is divided by what a good kernel would make of it.
struct ExpandDepthwiseCycles {
  double issue = 0, special = 0, tensor = 0, shared = 0;

  ExpandDepthwiseCycles operator*(double n) const { return {issue * n, special * n, tensor * n, shared * n}; }
  ExpandDepthwiseCycles operator+(const ExpandDepthwiseCycles& o) const {
    return {issue + o.issue, special + o.special, tensor + o.tensor, shared + o.shared};
  }
  double longest() const { return std::max({issue / 0.75, special / 0.85, tensor / 0.7, shared / 0.85}); }
};
inline constexpr double kMmaClocks = 2048 / (0.62 * 2048);

// Of 16 pixels by a chunk: as many instructions as are counted in the machine code (benchmarks/resources).
inline ExpandDepthwiseCycles expand_cycles(const ExpandDepthwiseVariant& v, int64_t in_channels) {
  const double tiles = v.chunk / 8, steps = in_channels / 16 + 1, halves = in_channels % 16 == 0 ? 0.5 : 0.0;
  return {(10.5 * tiles + (tiles + 1) * steps + 10) / 4, 8 * tiles, kMmaClocks * tiles * (steps - halves),
          4 * steps + 2 * tiles};
}

// Of an item: 16 channels, 8 columns, two bands.
inline ExpandDepthwiseCycles filter_cycles(const ExpandDepthwiseVariant& v) {
  const double k = v.kernel, taps = k * (v.kernel / 2 + 1), lines = (v.rows - 1) * v.stride + k, outputs = 8.0 * v.rows;
  return {(2 * v.rows * taps + 2 * lines * (v.kernel / 2 + 1) + 5.2 * outputs + 60) / 4, 2 * outputs,
          kMmaClocks * v.rows * k * k, 4 * lines * k};
}

// Tiles of `columns` columns in bands * 2 * rows rows or fewer; variant -1 where they do not fit.
inline ExpandDepthwisePlan expand_depthwise_plan(const ExpandDepthwiseShape& shape, int variant, int64_t bands,
                                                 int64_t columns) {
  const ExpandDepthwiseVariant& v = kExpandDepthwiseVariants[variant];
  const ConvGeometry& g = shape.geometry;
  ExpandDepthwisePlan p;
  p.bands = bands;
  // Rows are shared evenly: a band whose last rows are idle costs no expansion.
  const int64_t covered = 2 * bands * v.rows;
  p.tiles_y = divide_up(g.out_h(), covered);
  p.tile_rows = divide_up(g.out_h(), p.tiles_y);
  p.tile_columns = columns;
  p.tiles_x = divide_up(g.out_w(), columns);
  p.groups = divide_up(columns, 8);
  p.in_rows = (p.tile_rows - 1) * v.stride + v.kernel;
  const int64_t in_columns = (columns - 1) * v.stride + v.kernel, read = p.groups * 8 - 1;
  int64_t last;  // column that an item may read, from the first of its line
  if (v.stride == 2) {
    p.odd = divide_up(in_columns, 2);
    p.pitch = 2 * p.odd;
    last = std::max(p.odd + read + (v.kernel - 3) / 2, read + (v.kernel - 1) / 2);
  } else {
    // In a tile as wide as the image, what pads a line on the right is what pads the next one on the left.
    const bool whole = p.tiles_x == 1 && g.left < v.kernel && g.right < v.kernel;
    p.pitch = whole ? g.w + std::max(g.left, g.right) : in_columns;
    last = read + v.kernel - 1;
  }
  p.positions = round_up(p.in_rows * p.pitch, 16);
  p.all_positions = std::max(p.positions, ((covered - 1) * v.stride + v.kernel - 1) * p.pitch + last + 1);
  // An odd multiple of 8: then ldmatrix finds its 8 pixels in different banks.
  p.x_pitch = (shape.in_channels + 8) / 8 % 2 == 1 ? shape.in_channels + 8 : shape.in_channels + 16;
  // The sums of items, or of strips, of which a block computes 2 threads / chunk at once.
  const int64_t pool = std::max<int64_t>(p.places(), 64 * v.warps() / v.chunk);
  p.shared_bytes = 2 * p.positions * p.x_pitch + 2 * p.all_positions * (v.chunk + 8) + 4 * pool * v.chunk;
  p.resident =
      std::min<int64_t>(v.blocks(), shape.multiprocessor_shared_bytes / (p.shared_bytes + kReservedSharedBytes));
  if (p.resident == 0 || p.places() >= 1024) return p;
  p.variant = variant;

  // A row of sums is one block's: with more tiles than rows a block takes several.
  const int64_t tiles = p.tiles_y * p.tiles_x;
  p.blocks = shape.sums ? std::min(tiles, g.pool_tiles()) : tiles;
  p.chunks = divide_up(g.c, v.chunk);
  // A small batch: parts of the channels, until every multiprocessor has two blocks.
  const int64_t whole_blocks = std::max<int64_t>(g.n * p.blocks, 1);
  p.block_chunks = divide_up(p.chunks, std::min(p.chunks, divide_up(2 * shape.multiprocessors, whole_blocks)));

  // Products of 16 pixels of an average tile: those above and below the image are skipped.
  const int64_t end = ((p.tiles_y - 1) * p.tile_rows) * v.stride - g.top + p.in_rows;
  const int64_t lines = p.tiles_y * p.in_rows - g.top - std::max<int64_t>(end - g.h, 0);
  const double products = static_cast<double>(lines * p.pitch) / 16 / static_cast<double>(p.tiles_y);
  // Phases of blocks that share a multiprocessor overlap, those of a single block do not.
  const ExpandDepthwiseCycles expand = expand_cycles(v, shape.in_channels) * products;
  const ExpandDepthwiseCycles filter = filter_cycles(v) * static_cast<double>(p.places() * (v.chunk / 16));
  const double together = (expand + filter).longest(), apart = expand.longest() + filter.longest();
  const double chunk = together + (apart - together) / static_cast<double>(p.resident);
  // 16 bytes a thread of the tile are copied in some 15 instructions.
  const double load = 15.0 * static_cast<double>(p.positions * (shape.in_channels / 8 + 1)) / 32 / 4 / 0.75;
  const double warps = static_cast<double>(p.resident * v.warps());
  const double block = static_cast<double>(divide_up(tiles, std::max<int64_t>(p.blocks, 1))) *
                       (load + static_cast<double>(p.block_chunks) * chunk) * (1 + 2 / warps);
  const int64_t all = whole_blocks * divide_up(p.chunks, p.block_chunks);
  p.cycles = static_cast<double>(divide_up(all, shape.multiprocessors)) * block;
  return p;
}

// Of all kernels and tiles the one that is predicted to take least; variant -1 where none fits. `silu`: kernels for it.
inline ExpandDepthwisePlan choose_expand_depthwise(const ExpandDepthwiseShape& shape, bool silu) {
  ExpandDepthwisePlan best;
  // Up to 56 channels two blocks fit a multiprocessor of 164 KiB, and a block alone comes last whatever its cycles:
  // nothing hides its barriers and its loads, which are not counted.
  const auto alone = [&](const ExpandDepthwisePlan& p) { return shape.in_channels <= 56 && p.resident < 2; };
  const auto better = [&](const ExpandDepthwisePlan& p) {
    if (best.variant < 0 || alone(p) != alone(best)) return best.variant < 0 || alone(best);
    return p.cycles < best.cycles;
  };
  const int64_t out_h = shape.geometry.out_h(), out_w = shape.geometry.out_w();
  for (int i = 0; i < kExpandDepthwiseVariantCount; i++) {
    const ExpandDepthwiseVariant& v = kExpandDepthwiseVariants[i];
    if (v.kernel != shape.geometry.kernel || v.stride != shape.geometry.stride) continue;
    if (!silu && !is_for_any_activation(v)) continue;
    for (int64_t bands = 1; bands <= 4 && (bands == 1 || (bands - 1) * 2 * v.rows < out_h); bands++) {
      // Equal strips of 7 to 40 columns; narrower ones are mostly halo, wider ones do not fit twice.
      for (int64_t strips = divide_up(out_w, 40); strips <= divide_up(out_w, 7); strips++) {
        const ExpandDepthwisePlan p = expand_depthwise_plan(shape, i, bands, divide_up(out_w, strips));
        if (p.variant >= 0 && better(p)) best = p;
      }
    }
  }
  return best;
}

}  // namespace effnet_fast::cuda
