#include "packed.h"

#include <stdexcept>

namespace effnet_fast::cuda {
namespace {

constexpr int64_t kDTypes = 3, kKinds = 10;
static_assert(2 * kDTypes * kKinds < kPackedAlignment, "a tag for each use, and 0 for none");

int64_t tag_of(const PackedFor& use) {
  return 1 + use.halved + 2 * (static_cast<int64_t>(use.dtype) + kDTypes * static_cast<int64_t>(use.kind));
}

int64_t sections_length(std::span<const int64_t> section_bytes) {
  int64_t total = 0;
  for (const int64_t bytes : section_bytes)
    total += (bytes + kPackedAlignment - 1) / kPackedAlignment * kPackedAlignment;
  return total;
}

}  // namespace

PackedKind parse_packed_kind(std::string_view op) {
  if (op == "depthwise_conv") return PackedKind::kDepthwise;
  if (op == "pointwise_conv") return PackedKind::kPointwise;
  if (op == "stem_conv") return PackedKind::kStem;
  if (op == "head_pool") return PackedKind::kHead;
  if (op == "squeeze_excite_gate") return PackedKind::kSqueezeExcite;
  if (op == "depthwise_conv_gate") return PackedKind::kDepthwiseGate;
  if (op == "expand_depthwise") return PackedKind::kExpandDepthwise;
  if (op == "expand_silu_depthwise") return PackedKind::kExpandSiluDepthwise;
  if (op == "stem_block_sums") return PackedKind::kStemBlockSums;
  if (op == "stem_block") return PackedKind::kStemBlock;
  throw std::invalid_argument("the CUDA kernels have no packed weights for " + std::string(op));
}

int64_t packed_length(const PackedFor& use, std::span<const int64_t> section_bytes) {
  return sections_length(section_bytes) + tag_of(use);
}

std::string packed_problem(int64_t length, const PackedFor& use, std::span<const int64_t> section_bytes) {
  const int64_t tag = length % kPackedAlignment - 1, wanted = tag_of(use) - 1;
  if (tag < 0 || tag >= 2 * kDTypes * kKinds)
    return "packed was not made for the CUDA backend of this version: pack the weights again";
  if (tag / 2 / kDTypes != wanted / 2 / kDTypes) return "packed holds the weights of another operator";
  if (tag / 2 != wanted / 2) return "packed holds weights of another dtype than x's";
  if (tag != wanted)
    return "packed was made for another activation: in 16 bits, weights in front of silu differ from the others";
  if (length != packed_length(use, section_bytes))
    return "packed holds weights of another shape: " + std::to_string(length) + " bytes, this call wants " +
           std::to_string(packed_length(use, section_bytes));
  return "";
}

}  // namespace effnet_fast::cuda
