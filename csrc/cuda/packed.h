// Packed weights: sections of plain arrays, one behind the other, each at a multiple of kAlignment.
//
// What they are for is in the length, not in a header, since reading a header would make every call wait for the GPU:
// behind the sections come some more bytes, fewer than kPackedAlignment, and their number stands for operator, dtype
// and activation. So weights of another operator, dtype or shape are refused by their length alone.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "../common/dtype.h"

namespace effnet_fast::cuda {

enum class PackedKind {
  kDepthwise,
  kPointwise,
  kStem,
  kHead,
  kSqueezeExcite,
  kDepthwiseGate,
  kExpandDepthwise,
  kExpandSiluDepthwise,
  kStemBlockSums,
  kStemBlock
};

struct PackedFor {
  PackedKind kind;
  DType dtype;
  bool halved;  // weights and bias, in front of a SiLU in 16 bits: see activation.cuh; kExpandSilu...: the first, too
};

inline constexpr int64_t kPackedAlignment = 64;

// "depthwise_conv" and so on: what pack_<op> packs for. Throws for an operator without a layout here.
PackedKind parse_packed_kind(std::string_view op);

// Bytes of sections of these sizes packed for this use.
int64_t packed_length(const PackedFor& use, std::span<const int64_t> section_bytes);

// Why a tensor of `length` bytes is not that; empty when it is.
std::string packed_problem(int64_t length, const PackedFor& use, std::span<const int64_t> section_bytes);

}  // namespace effnet_fast::cuda
