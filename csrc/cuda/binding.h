// Between PyTorch's stable ABI and the torch-free launches: checks, views, streams and workspaces, shared by every
// operator. Python has validated a public call already; these checks keep a raw call with wrong tensors from reading
// outside them.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "../common/geometry.h"
#include "launcher.h"
#include "packed.h"

namespace effnet_fast::cuda {

using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;
using Padding = std::vector<int64_t>;

DType dtype_of(torch::headeronly::ScalarType type, const char* name);  // float32, float16, bfloat16 or uint8
inline DType dtype_of(const Tensor& t, const char* name) { return dtype_of(t.scalar_type(), name); }

// Shape [n, c, h, w] as long as the memory is dense NHWC.
struct Image {
  int64_t n, c, h, w;
};

// One call: its device is the current one as long as this lives, and every tensor must be on it.
class Call {
 public:
  Call(const char* op, const Tensor& on);

  Image nhwc(const Tensor& t, const char* name) const;
  // `t` must have this shape, dtype and dense NHWC memory.
  void check_image(const Tensor& t, const char* name, const Image& shape, DType dtype) const;
  // The values of `t`, a dense float32 tensor of this shape; null for an absent one.
  float* floats(const Tensor& t, const char* name, std::initializer_list<int64_t> shape) const;
  const float* floats(const OptionalTensor& t, const char* name, std::initializer_list<int64_t> shape) const;
  void check_device(const Tensor& t, const char* name) const;

  // The sections of packed weights, of these sizes; see packed.h.
  std::vector<const void*> unpack(const Tensor& packed, const PackedFor& use,
                                  std::initializer_list<int64_t> section_bytes) const;

  // Memory of the stream, until the launches behind it have run; of any content, or zeros.
  float* workspace(int64_t elements);
  int* zeros(int64_t elements);

  Launcher& launcher() { return launcher_; }

 private:
  void* keep(Tensor memory);

  Tensor on_;
  torch::stable::accelerator::DeviceGuard guard_;
  Launcher launcher_;
  std::vector<Tensor> kept_;  // workspaces: freed in stream order, so nothing waits for the launches
};

ConvGeometry geometry_of(const Image& x, int64_t kernel, int64_t stride, const Padding& padding);

// What weights with this activation behind them are packed for.
PackedFor packed_for(PackedKind kind, DType dtype, Activation activation);

}  // namespace effnet_fast::cuda
