// The packed weights of the CPU backend: a header and 64-byte aligned sections in one block of bytes. Torch-free.
//
// Vectors of output channels lie one behind another, so that a panel of any number of vectors is contiguous:
//   matrix    [ceil(N / W)] panels' vectors; inside a panel of V vectors: [K][V * W] float32,
//             or [K / 2][V * W][2] bfloat16, for products of pairs (AVX512_BF16, AMX) or to be widened when read.
//             K = k * k * stored_channels
//   depthwise [ceil(C / W)][k * k][W] float32
//   squeeze   w1 [S][C'], w2 transposed [S][C'] float32, C' = C rounded up to W
// with W the vector width of the instruction set that the block was packed for. Padding channels are zero.
#pragma once

#include <cstdint>

#include "../common/dtype.h"

namespace effnet_fast {

enum class PackedKind : int32_t { kMatrix = 1, kConv = 2, kDepthwise = 3, kSqueezeExcite = 4, kDepthwiseGate = 5 };

inline constexpr uint32_t kPackedMagic = 0x4b504645;  // "EFPK"
inline constexpr int32_t kPackedVersion = 3;
inline constexpr int32_t kPackedForCpu = 1;
inline constexpr int64_t kPackedAlignment = 64;

struct PackedHeader {
  uint32_t magic;
  int32_t version;
  int32_t backend;
  int32_t isa;          // index into kIsaNames
  int32_t kind;         // PackedKind
  int32_t dtype;        // DType of the weights
  int32_t bf16_pairs;   // 1: the matrix is stored for products of bf16 pairs
  int32_t in_channels;  // K of a matrix per kernel tap; C of a depthwise convolution
  int32_t out_channels;
  int32_t kernel;        // 1 for a matrix
  int32_t squeeze;       // squeeze-excite width, 0 without
  int32_t bf16_values;   // 1: float32 weights, each a bfloat16 value, are stored as such: half the bytes, the same bits
  int64_t bytes;         // of the whole block
  int64_t weight, bias;  // offsets of the sections from the header
  int64_t w1, b1, w2, b2;
  int64_t padding[3];
};
static_assert(sizeof(PackedHeader) == 128);

// Channels of a pixel as a convolution multiplies them: for pairs an even number, the last of them zero in pixels and
// weights. (A 1x1 convolution reads pixels where they lie, so an odd number of channels has no pairs there.)
inline int64_t stored_channels(const PackedHeader& header) {
  return header.in_channels + (header.bf16_pairs && header.in_channels % 2);
}

template <class T>
const T* section(const PackedHeader& header, int64_t offset) {
  return reinterpret_cast<const T*>(reinterpret_cast<const char*>(&header) + offset);
}

}  // namespace effnet_fast
