// Packs weights into the layouts of packed.h. Torch-free: weights come as plain arrays in the framework's shapes.
#pragma once

#include "kernels.h"

namespace effnet_fast {

struct WeightArray {
  const void* data = nullptr;  // contiguous; null for an absent tensor
  DType dtype = DType::kFloat32;
  float at(int64_t i) const;
};

// What is packed. A matrix is [out][in]; a conv [out][in][k][k]; a depthwise filter [channels][k][k], with
// in_channels = out_channels = channels; squeeze-excite w1 [squeeze][channels], w2 [channels][squeeze].
struct PackRequest {
  PackedKind kind;
  Isa isa;
  int64_t in_channels, out_channels, kernel, squeeze;
  WeightArray weight, bias, w1, b1, w2, b2;
  bool may_halve = false;  // a matrix whose kernel reads PackedHeader::bf16_values
};

// The header that the packed block of `request` will start with; header.bytes is the size to allocate.
PackedHeader packed_layout(const PackRequest& request);

// Fills `block`, packed_layout(request).bytes long.
void pack(const PackRequest& request, void* block);

}  // namespace effnet_fast
