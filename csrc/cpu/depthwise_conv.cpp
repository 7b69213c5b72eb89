// Registration of depthwise_conv, depthwise_conv_pool and depthwise_conv_gate for the CPU; the kernels are
// depthwise_conv.h and squeeze_excite_gate.h.
#include "program.h"

namespace effnet_fast {
namespace {

// A block packed for depthwise_conv_gate holds the depthwise weights in the same places.
void convolve(const Tensor& y, float* sums, const Tensor& x, const PackedHeader* packed, const ConvGeometry& g,
              const std::string& activation, const Parallel& parallel) {
  const DType dtype = dtype_of(x, "x");
  check_same_dtype(packed, dtype);
  check_image(y, "y", {g.n, g.c, g.out_h(), g.out_w()}, dtype);
  kernels_for(packed).depthwise_conv({g, dtype, x.data_ptr(), packed, y.data_ptr(), sums, parse_activation(activation)},
                                     parallel);
}

Tensor pack_depthwise_conv(Tensor weight, OptionalTensor bias, std::string activation, std::string isa) {
  parse_activation(activation);
  Weight holders[2];
  return pack_tensor(depthwise_request(weight, bias, isa, holders), weight);
}

void packed_into(Tensor y, Tensor x, Tensor packed, int64_t kernel, int64_t stride, Padding padding,
                 std::string activation) {
  const Image s = nhwc(x, "x");
  convolve(y, nullptr, x, unpack(packed, PackedKind::kDepthwise, s.c, s.c, kernel),
           geometry_of(s, kernel, stride, padding), activation, pytorch_threads());
}

void into(Tensor y, Tensor x, Tensor weight, OptionalTensor bias, int64_t stride, Padding padding,
          std::string activation) {
  packed_into(y, x, pack_depthwise_conv(weight, bias, activation, "auto"), weight.size(2), stride, padding, activation);
}

void pool_packed_into(Tensor y, Tensor sums, Tensor x, Tensor packed, int64_t kernel, int64_t stride, Padding padding,
                      std::string activation) {
  const Image s = nhwc(x, "x");
  const ConvGeometry g = geometry_of(s, kernel, stride, padding);
  check_floats(sums, "sums", {s.n, g.pool_tiles(), s.c});
  convolve(y, static_cast<float*>(sums.data_ptr()), x, unpack(packed, PackedKind::kDepthwise, s.c, s.c, kernel), g,
           activation, pytorch_threads());
}

void pool_into(Tensor y, Tensor sums, Tensor x, Tensor weight, OptionalTensor bias, int64_t stride, Padding padding,
               std::string activation) {
  pool_packed_into(y, sums, x, pack_depthwise_conv(weight, bias, activation, "auto"), weight.size(2), stride, padding,
                   activation);
}

Tensor pack_depthwise_conv_gate(Tensor weight, OptionalTensor bias, Tensor w1, OptionalTensor b1, Tensor w2,
                                OptionalTensor b2, std::string activation, std::string isa) {
  parse_activation(activation);
  Weight holders[2], squeeze_holders[4];
  PackRequest request = depthwise_request(weight, bias, isa, holders);
  request.kind = PackedKind::kDepthwiseGate;
  add_squeeze_excite(request, w1, b1, w2, b2, squeeze_holders);
  return pack_tensor(request, weight);
}

void gate_packed_into(Tensor y, Tensor gates, Tensor x, Tensor packed, int64_t kernel, int64_t stride, Padding padding,
                      std::string activation, int64_t squeeze, std::string se_activation, std::string gate) {
  const Image s = nhwc(x, "x");
  const ConvGeometry g = geometry_of(s, kernel, stride, padding);
  const PackedHeader* header = unpack(packed, PackedKind::kDepthwiseGate, s.c, s.c, kernel, squeeze);
  check_floats(gates, "gates", {s.n, s.c});
  const Parallel parallel = pytorch_threads();
  std::vector<float> sums(s.n * g.pool_tiles() * s.c);
  convolve(y, sums.data(), x, header, g, activation, parallel);
  kernels_for(header).squeeze_excite_gate(
      {s.n, g.pool_tiles(), g.out_h() * g.out_w(), sums.data(), header, static_cast<float*>(gates.data_ptr()),
       parse_activation(se_activation), parse_gate(gate)},
      parallel);
}

void gate_into(Tensor y, Tensor gates, Tensor x, Tensor weight, OptionalTensor bias, int64_t stride, Padding padding,
               std::string activation, Tensor w1, OptionalTensor b1, Tensor w2, OptionalTensor b2,
               std::string se_activation, std::string gate) {
  gate_packed_into(y, gates, x, pack_depthwise_conv_gate(weight, bias, w1, b1, w2, b2, activation, "auto"),
                   weight.size(2), stride, padding, activation, w1.size(0), se_activation, gate);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(effnet_fast, CPU, m) {
  m.impl("pack_depthwise_conv", TORCH_BOX(&pack_depthwise_conv));
  m.impl("depthwise_conv_into", TORCH_BOX(&into));
  implement<&packed_into>(m, "depthwise_conv_packed_into");
  m.impl("depthwise_conv_pool_into", TORCH_BOX(&pool_into));
  implement<&pool_packed_into>(m, "depthwise_conv_pool_packed_into");
  m.impl("pack_depthwise_conv_gate", TORCH_BOX(&pack_depthwise_conv_gate));
  m.impl("depthwise_conv_gate_into", TORCH_BOX(&gate_into));
  implement<&gate_packed_into>(m, "depthwise_conv_gate_packed_into");
}

}  // namespace effnet_fast
