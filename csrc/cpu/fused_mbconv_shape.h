// How fused_mbconv cuts its output into tiles, and the memory that one takes: by shape alone, the same for every
// instruction set. Torch-free.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../common/geometry.h"

namespace effnet_fast {

struct FusedMBConvShape {
  // Output pixels of a tile: from kPixels to twice as many, where the map has them. 96 pixels of EfficientNetV2-S's 192
  // expanded channels are 72 KiB in float32, which leaves room in an L2 of 1 MiB for the 370 KiB of weights. 32, 64 and
  // 128 are equally fast on a Zen 5 core (within 2 %).
  static constexpr int64_t kPixels = 64;
  static constexpr int64_t kPieceBytes = 24;  // a kernel row of an output row: an address and two lengths

  int64_t blocks;        // of rows that an image is cut into; each of these is one task
  int64_t rows;          // most rows of a block: more than one where rows are short
  int64_t tiles;         // that a row is cut into: more than one where rows are long, and blocks one row each
  int64_t pixels;        // most pixels of a tile
  int64_t ring_rows;     // input rows that a block reads
  int64_t row_elements;  // of an input row with its padding
  int64_t pieces_bytes, expanded;

  FusedMBConvShape(const ConvGeometry& g, int64_t expanded)
      : blocks(ceil_div(g.out_h(), ceil_div(kPixels, g.out_w()))),
        rows(ceil_div(g.out_h(), blocks)),
        tiles(ceil_div(g.out_w(), 2 * kPixels)),
        pixels(rows * ceil_div(g.out_w(), tiles)),
        ring_rows((rows - 1) * g.stride + g.kernel),
        row_elements((g.left + g.w + g.right) * g.c),
        pieces_bytes(aligned(rows * g.kernel * kPieceBytes)),
        expanded(expanded) {}

  // The ring, with a row of zeros behind it, of elements of `pixel_bytes`; the expanded tile, of `hidden_bytes`.
  int64_t ring_bytes(int64_t pixel_bytes) const { return aligned((ring_rows + 1) * row_elements * pixel_bytes); }
  int64_t tile_bytes(int64_t hidden_bytes) const { return aligned(pixels * expanded * hidden_bytes); }
  int64_t task_bytes(int64_t pixel_bytes, int64_t hidden_bytes) const {
    return pieces_bytes + ring_bytes(pixel_bytes) + tile_bytes(hidden_bytes);
  }

 private:
  static int64_t aligned(int64_t bytes) { return ceil_div(bytes, 64) * 64; }
};

}  // namespace effnet_fast
