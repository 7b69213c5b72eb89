// How a block's images are shared out among threads, and the memory that this takes: by shape alone, the same for every
// instruction set. Torch-free.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../common/geometry.h"

namespace effnet_fast {

struct MBConvShape {
  // Rows of the filtered image whose sums are taken together: the least that a thread gets of a chunk. 7 divides the
  // maps of 224 pixel images.
  static constexpr int64_t kBlockRows = 7;

  int64_t images, pixels, blocks;  // pixels and blocks of rows of the filtered image
  int64_t channels;                // expanded, rounded up to whole vectors
  int64_t element_bytes;           // of the filtered image
  bool gate_weights;               // the gate scales the projection's weights: they are fewer than the map's pixels

  MBConvShape(const ConvGeometry& g, int64_t out_channels, bool squeeze_excite, int64_t width, int64_t element_bytes)
      : images(g.n),
        pixels(g.out_h() * g.out_w()),
        blocks(ceil_div(g.out_h(), kBlockRows)),
        channels(ceil_div(g.c, width) * width),
        element_bytes(element_bytes),
        gate_weights(squeeze_excite && pixels > out_channels) {}

  // Images that are computed together. Four where the map is small: the weights, 1.8 MB of a 7 x 7 block of B0, are
  // then read from the L3 once for all of them.
  int64_t group() const { return gate_weights || pixels > 128 ? 1 : 4; }

  // What lies between the phases of `count` images: the filtered images and the sums.
  int64_t filtered_bytes(int64_t count) const { return ceil_div(count * pixels * channels * element_bytes, 64) * 64; }
  int64_t workspace_bytes(int64_t count) const { return filtered_bytes(count) + count * blocks * channels * 4; }

  // Images that are shared out to the threads whole, as many to each; the rest, if any, is computed by all threads
  // image by image. None where a thread would need too much memory of its own.
  int64_t by_thread(int64_t threads) const {
    return threads > 1 && workspace_bytes(1) <= (16 << 20) ? images / threads * threads : 0;
  }

  // Memory of all threads together.
  int64_t scratch_bytes(int64_t threads) const {
    const int64_t shared_out = by_thread(threads);
    const int64_t each = shared_out ? threads * workspace_bytes(std::min(group(), shared_out / threads)) : 0;
    return std::max(each, images > shared_out ? workspace_bytes(std::min(group(), images - shared_out)) : 0);
  }
};

}  // namespace effnet_fast
