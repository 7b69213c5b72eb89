// Registration of head_pool for the CPU; the kernel is head_pool.h.
#include "program.h"

namespace effnet_fast {
namespace {

Tensor pack_head_pool(Tensor weight, OptionalTensor bias, std::string activation, std::string isa) {
  parse_activation(activation);
  Weight holders[2];
  return pack_tensor(matrix_request(weight, bias, isa, PackedKind::kMatrix, holders), weight);
}

void packed_into(Tensor y, Tensor x, Tensor packed, int64_t out_channels, std::string activation) {
  const Image s = nhwc(x, "x");
  const DType dtype = dtype_of(x, "x");
  const PackedHeader* header = unpack(packed, PackedKind::kMatrix, s.c, out_channels, 1);
  check_same_dtype(header, dtype);
  check_floats(y, "y", {s.n, out_channels});
  STD_TORCH_CHECK(s.h * s.w > 0, "x has no pixels to average");
  kernels_for(header).head_pool(
      {s.n, s.h * s.w, dtype, x.data_ptr(), header, static_cast<float*>(y.data_ptr()), parse_activation(activation)},
      pytorch_threads());
}

void into(Tensor y, Tensor x, Tensor weight, OptionalTensor bias, std::string activation) {
  packed_into(y, x, pack_head_pool(weight, bias, activation, "auto"), weight.size(0), activation);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(effnet_fast, CPU, m) {
  m.impl("pack_head_pool", TORCH_BOX(&pack_head_pool));
  m.impl("head_pool_into", TORCH_BOX(&into));
  implement<&packed_into>(m, "head_pool_packed_into");
}

}  // namespace effnet_fast
