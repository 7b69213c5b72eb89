// Shape of a two-dimensional convolution, computed once and passed everywhere. Torch-free.
#pragma once

#include <cstdint>

namespace effnet_fast {

// Rows of one squeeze-excite partial sum: `sums` has ceil(OH/16) * ceil(OW/16) tiles on every backend.
inline constexpr int64_t kPoolTile = 16;

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct ConvGeometry {
  int64_t n, c, h, w;                // input: images, channels, height, width
  int64_t kernel, stride;            // square kernel, equal strides
  int64_t top, left, bottom, right;  // explicit padding, so that SAME and symmetric are one kernel
  int64_t out_h() const { return (h + top + bottom - kernel) / stride + 1; }
  int64_t out_w() const { return (w + left + right - kernel) / stride + 1; }
  int64_t pool_rows() const { return ceil_div(out_h(), kPoolTile); }
  int64_t pool_cols() const { return ceil_div(out_w(), kPoolTile); }
  int64_t pool_tiles() const { return pool_rows() * pool_cols(); }
};

}  // namespace effnet_fast
