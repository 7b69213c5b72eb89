// Between PyTorch's stable ABI and the torch-free kernels: checks, views and packing shared by every operator.
// Python has validated a public call already; these checks keep a raw call with wrong tensors from reading outside
// them.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "dispatch.h"
#include "pack.h"

namespace effnet_fast {

using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;
using Padding = std::vector<int64_t>;

// PyTorch's threads; within with_team those of the team.
Parallel pytorch_threads();

// Runs `body` on this thread and keeps PyTorch's other threads at hand for every loop of a kernel within it: one region
// of its pool for all of them (team.h).
void with_team(const std::function<void()>& body);

DType dtype_of(const Tensor& t, const char* name);  // float32, float16, bfloat16 or uint8

// Shape [n, c, h, w] as long as the memory is dense NHWC.
struct Image {
  int64_t n, c, h, w;
};
Image nhwc(const Tensor& t, const char* name);

// `t` must have this shape, dtype and dense NHWC memory.
void check_image(const Tensor& t, const char* name, const Image& shape, DType dtype);
// `t` must be a dense float32 tensor of this shape.
void check_floats(const Tensor& t, const char* name, std::initializer_list<int64_t> shape);

ConvGeometry geometry_of(const Image& x, int64_t kernel, int64_t stride, const Padding& padding);

// A weight tensor made contiguous, with the dtype's array view; holds the tensor alive.
struct Weight {
  Weight() = default;
  Weight(const Tensor& t, const char* name, int64_t elements);
  Weight(const OptionalTensor& t, const char* name, int64_t elements);
  std::optional<Tensor> tensor;
  WeightArray array;
};

Tensor pack_tensor(const PackRequest& request, const Tensor& like);
// The blocks of an operator's parts, one behind the other.
Tensor pack_parts(const std::vector<PackRequest>& parts, const Tensor& like);

// The header of a packed tensor, checked: magic, size, kind and the shape that the call expects of it. `reads_halved`:
// whether the call's kernel reads PackedHeader::bf16_values; others would read beyond such a block.
const PackedHeader* unpack(const Tensor& packed, PackedKind kind, int64_t in_channels, int64_t out_channels,
                           int64_t kernel, int64_t squeeze = 0, bool reads_halved = false);

inline const KernelTable& kernels_for(const PackedHeader* packed) { return kernels_of(static_cast<Isa>(packed->isa)); }

// The two blocks of weights packed for expand_depthwise*, one behind the other: a matrix and a depthwise filter.
struct ExpandDepthwisePacked {
  const PackedHeader* expand;
  const PackedHeader* depthwise;
};
ExpandDepthwisePacked unpack_pair(const Tensor& packed, int64_t in_channels, int64_t expanded, int64_t kernel);

// The blocks of weights packed for mbconv, one behind the other; null where there is no such part.
struct MBConvPacked {
  const PackedHeader *expand, *depthwise, *squeeze_excite, *project;
};
MBConvPacked unpack_mbconv(const Tensor& packed, int64_t in_channels, int64_t expanded, int64_t out_channels,
                           int64_t kernel, int64_t squeeze);

// The two blocks of weights packed for fused_mbconv, one behind the other: a convolution and a matrix.
struct FusedMBConvPacked {
  const PackedHeader *expand, *project;
};
FusedMBConvPacked unpack_fused_mbconv(const Tensor& packed, int64_t in_channels, int64_t expanded, int64_t out_channels,
                                      int64_t kernel);

// The weights of x's dtype: matrices are stored per dtype, so x and weight must agree.
void check_same_dtype(const PackedHeader* packed, DType dtype);

PackRequest matrix_request(const Tensor& weight, const OptionalTensor& bias, std::string_view isa, PackedKind kind,
                           Weight* holders);
PackRequest depthwise_request(const Tensor& weight, const OptionalTensor& bias, std::string_view isa, Weight* holders);
void add_squeeze_excite(PackRequest& request, const Tensor& w1, const OptionalTensor& b1, const Tensor& w2,
                        const OptionalTensor& b2, Weight* holders);

}  // namespace effnet_fast
