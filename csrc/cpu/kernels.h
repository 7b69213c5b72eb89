// What the registration code and the kernels agree on: arguments of each operator, and one table of kernels
// per instruction set. Torch-free, so that tests/cpp can drive every kernel alone.
#pragma once

#include <cstdint>

#include "../common/activation.h"
#include "../common/dtype.h"
#include "../common/geometry.h"
#include "packed.h"
#include "panel_split.h"

namespace effnet_fast {

// Runs body(begin, end, context) over a partition of [0, n). Supplied by the caller (PyTorch's pool in the library).
struct Parallel {
  int64_t threads;
  void (*run)(int64_t n, void (*body)(int64_t, int64_t, void*), void* context);

  template <class F>
  void operator()(int64_t n, const F& f) const {
    if (n <= 0) return;
    if (threads <= 1 || n == 1) return f(0, n);
    run(
        n, [](int64_t begin, int64_t end, void* context) { (*static_cast<const F*>(context))(begin, end); },
        const_cast<void*>(static_cast<const void*>(&f)));
  }
};

struct PointwiseConvArgs {
  int64_t images, pixels;  // pixels = H * W of one image
  DType dtype;             // of x, residual and y
  const void* x;           // [images, pixels, in_channels]
  const PackedHeader* packed;
  const float* gate;     // [images, in_channels] or null
  const void* residual;  // like y, or null
  void* y;               // [images, pixels, out_channels]
  Activation activation;
};

struct HeadPoolArgs {
  int64_t images, pixels;
  DType dtype;  // of x
  const void* x;
  const PackedHeader* packed;
  float* y;  // [images, out_channels]
  Activation activation;
};

// dense_conv and stem_conv: a k x k convolution over all channels.
struct ConvArgs {
  ConvGeometry geometry;
  DType image_dtype, dtype;  // of x; of weights, residual and y
  const void* x;             // [n, c, h, w] at the strides below, in elements
  int64_t stride_n, stride_c, stride_h, stride_w;
  // The convolved value of a pixel is (pixel * unit - mean) * inverse_std of its channel; null mean: the pixel itself.
  float unit;
  const float* mean;
  const float* inverse_std;
  const PackedHeader* packed;
  const void* residual;
  void* y;  // [n, out_h, out_w, out_channels]
  Activation activation;
};

struct DepthwiseConvArgs {
  ConvGeometry geometry;
  DType dtype;
  const void* x;  // [n, h, w, c]
  const PackedHeader* packed;
  void* y;      // [n, out_h, out_w, c]
  float* sums;  // [n, pool_tiles, c], or null
  Activation activation;
};

struct ExpandDepthwiseArgs {
  DepthwiseConvArgs depthwise;  // its x is not used; geometry.c is the expanded width
  const void* x;                // [n, h, w, in_channels]
  const PackedHeader* expand;
  Activation expand_activation;
};

struct SqueezeExciteArgs {
  int64_t images, tiles, count;
  const float* sums;  // [images, tiles, channels]
  const PackedHeader* packed;
  float* gates;  // [images, channels]
  Activation activation;
  Gate gate;
};

struct MBConvArgs {
  ConvGeometry geometry;       // of the depthwise convolution: h and w of x, c the expanded channels
  int64_t in_channels;         // of x
  DType dtype;                 // of x and y
  const void* x;               // [n, h, w, in_channels]
  const PackedHeader* expand;  // null: x is filtered itself, in_channels = geometry.c
  const PackedHeader* depthwise;
  const PackedHeader* squeeze_excite;  // or null
  const PackedHeader* project;
  void* y;  // [n, out_h, out_w, project->out_channels]
  Activation activation, se_activation;
  Gate gate;
  bool residual;  // add x to y, which is as large
};

struct FusedMBConvArgs {
  ConvGeometry geometry;       // of the expansion: n, c, h and w of x
  DType dtype;                 // of x and y
  const void* x;               // [n, h, w, c]
  const PackedHeader* expand;  // a convolution, kernel x kernel
  const PackedHeader* project;
  void* y;                // [n, out_h, out_w, project->out_channels]
  Activation activation;  // of the expansion
  bool residual;          // add x to y, which is as large
};

// What `peak` repeats: multiply-adds of float32, of bfloat16 pairs, or SiLU.
enum class Peak : int32_t { kFma, kDot, kSilu };

struct KernelTable {
  const char* name;
  int width;                                  // float32 lanes of a vector
  bool bf16_pairs;                            // multiplies bfloat16 in pairs
  bool halves_weights;                        // its pointwise_conv reads PackedHeader::bf16_values
  PanelSplit (*panels)(const PackedHeader&);  // in which a matrix's columns are packed
  void (*pointwise_conv)(const PointwiseConvArgs&, const Parallel&);
  void (*head_pool)(const HeadPoolArgs&, const Parallel&);
  void (*conv)(const ConvArgs&, const Parallel&);
  void (*depthwise_conv)(const DepthwiseConvArgs&, const Parallel&);
  void (*expand_depthwise)(const ExpandDepthwiseArgs&, const Parallel&);
  void (*squeeze_excite_gate)(const SqueezeExciteArgs&, const Parallel&);
  void (*mbconv)(const MBConvArgs&, const Parallel&);
  void (*fused_mbconv)(const FusedMBConvArgs&, const Parallel&);
  int64_t (*peak)(Peak kind, int64_t iterations);
};

// Widest first (dispatch.cpp has the order of this machine). "portable" is the compiler's vectors at the baseline of
// the platform.
enum class Isa : int32_t { kAvx512Amx = 0, kAvx512Bf16 = 1, kAvx512 = 2, kAvx2 = 3, kPortable = 4 };
inline constexpr const char* kIsaNames[] = {"avx512_amx", "avx512_bf16", "avx512", "avx2", "portable"};
inline constexpr int kIsaCount = 5;

const KernelTable& avx512_amx_kernels();
const KernelTable& avx512_bf16_kernels();
const KernelTable& avx512_kernels();
const KernelTable& avx2_kernels();
const KernelTable& portable_kernels();

}  // namespace effnet_fast
