// Registration of pointwise_conv for the CPU; the kernel is pointwise_conv.h.
#include "program.h"

namespace effnet_fast {
namespace {

void run(const Tensor& y, const Tensor& x, const PackedHeader* packed, const std::string& activation,
         const OptionalTensor& gate, const OptionalTensor& residual) {
  const Image s = nhwc(x, "x");
  const Image out{s.n, packed->out_channels, s.h, s.w};
  const DType dtype = dtype_of(x, "x");
  check_same_dtype(packed, dtype);
  check_image(y, "y", out, dtype);
  if (gate) check_floats(*gate, "gate", {s.n, s.c});
  if (residual) check_image(*residual, "residual", out, dtype);
  kernels_for(packed).pointwise_conv(
      {s.n, s.h * s.w, dtype, x.data_ptr(), packed, gate ? static_cast<const float*>(gate->data_ptr()) : nullptr,
       residual ? residual->data_ptr() : nullptr, y.data_ptr(), parse_activation(activation)},
      pytorch_threads());
}

Tensor pack_pointwise_conv(Tensor weight, OptionalTensor bias, std::string activation, std::string isa) {
  parse_activation(activation);
  Weight holders[2];
  PackRequest request = matrix_request(weight, bias, isa, PackedKind::kMatrix, holders);
  request.may_halve = true;
  return pack_tensor(request, weight);
}

void packed_into(Tensor y, Tensor x, Tensor packed, int64_t out_channels, std::string activation, OptionalTensor gate,
                 OptionalTensor residual) {
  const PackedHeader* header = unpack(packed, PackedKind::kMatrix, x.size(1), out_channels, 1, 0, true);
  run(y, x, header, activation, gate, residual);
}

void into(Tensor y, Tensor x, Tensor weight, OptionalTensor bias, std::string activation, OptionalTensor gate,
          OptionalTensor residual) {
  const Tensor packed = pack_pointwise_conv(weight, bias, activation, "auto");
  packed_into(y, x, packed, weight.size(0), activation, gate, residual);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(effnet_fast, CPU, m) {
  m.impl("pack_pointwise_conv", TORCH_BOX(&pack_pointwise_conv));
  m.impl("pointwise_conv_into", TORCH_BOX(&into));
  implement<&packed_into>(m, "pointwise_conv_packed_into");
}

}  // namespace effnet_fast
