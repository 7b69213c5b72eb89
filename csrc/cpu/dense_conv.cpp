// Registration of dense_conv for the CPU; the kernel is conv.h.
#include "program.h"

namespace effnet_fast {
namespace {

Tensor pack_dense_conv(Tensor weight, OptionalTensor bias, std::string activation, std::string isa) {
  parse_activation(activation);
  Weight holders[2];
  return pack_tensor(matrix_request(weight, bias, isa, PackedKind::kConv, holders), weight);
}

void packed_into(Tensor y, Tensor x, Tensor packed, int64_t out_channels, int64_t kernel, int64_t stride,
                 Padding padding, std::string activation, OptionalTensor residual) {
  const Image s = nhwc(x, "x");
  const DType dtype = dtype_of(x, "x");
  const PackedHeader* header = unpack(packed, PackedKind::kConv, s.c, out_channels, kernel);
  check_same_dtype(header, dtype);
  const ConvGeometry g = geometry_of(s, kernel, stride, padding);
  const Image out{s.n, out_channels, g.out_h(), g.out_w()};
  check_image(y, "y", out, dtype);
  if (residual) check_image(*residual, "residual", out, dtype);
  kernels_for(header).conv(
      {g, dtype, dtype, x.data_ptr(), s.h * s.w * s.c, 1, s.w * s.c, s.c, 1.0f, nullptr, nullptr, header,
       residual ? residual->data_ptr() : nullptr, y.data_ptr(), parse_activation(activation)},
      pytorch_threads());
}

void into(Tensor y, Tensor x, Tensor weight, OptionalTensor bias, int64_t stride, Padding padding,
          std::string activation, OptionalTensor residual) {
  packed_into(y, x, pack_dense_conv(weight, bias, activation, "auto"), weight.size(0), weight.size(2), stride, padding,
              activation, residual);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(effnet_fast, CPU, m) {
  m.impl("pack_dense_conv", TORCH_BOX(&pack_dense_conv));
  m.impl("dense_conv_into", TORCH_BOX(&into));
  implement<&packed_into>(m, "dense_conv_packed_into");
}

}  // namespace effnet_fast
