// Registration of depthwise_conv, depthwise_conv_pool and depthwise_conv_gate for CUDA; the kernels are
// depthwise_conv.cuh and squeeze_excite_gate.cuh, the former compiled in one file a storage type.
#include "depthwise_conv_gate_launch.h"

#include "binding.h"

namespace effnet_fast::cuda {

extern template void launch_depthwise_conv<float>(const DepthwiseConvCall&, Launcher&, const SqueezeExciteTail&);
extern template void launch_depthwise_conv<half>(const DepthwiseConvCall&, Launcher&, const SqueezeExciteTail&);
extern template void launch_depthwise_conv<bfloat16>(const DepthwiseConvCall&, Launcher&, const SqueezeExciteTail&);
extern template void launch_squeeze_excite_gate(const SqueezeExciteGateCall&, Launcher&);

namespace {

// Without weights, which each operator packs in its own way.
DepthwiseConvCall convolution(Call& call, const Tensor& y, const Tensor& x, int64_t kernel, int64_t stride,
                              const Padding& padding, const std::string& activation) {
  const DType dtype = dtype_of(x, "x");
  DepthwiseConvCall c{};
  c.geometry = geometry_of(call.nhwc(x, "x"), kernel, stride, padding);
  call.check_image(y, "y", {c.geometry.n, c.geometry.c, c.geometry.out_h(), c.geometry.out_w()}, dtype);
  c.multiprocessors = call.launcher().multiprocessors();
  c.activation = parse_activation(activation);
  c.x = x.data_ptr();
  c.y = y.data_ptr();
  return c;
}

int64_t weight_bytes(const ConvGeometry& g, DType dtype) { return g.kernel * g.kernel * g.c * size_of(dtype); }

void launch(Call& call, DepthwiseConvCall& c, const Tensor& x, const Tensor& packed) {
  const DType dtype = dtype_of(x, "x");
  const auto weights = call.unpack(packed, packed_for(PackedKind::kDepthwise, dtype, c.activation),
                                   {weight_bytes(c.geometry, dtype), 4 * c.geometry.c});
  c.weight = weights[0];
  c.bias = static_cast<const float*>(weights[1]);
  with_storage(dtype, [&]<class T>() { launch_depthwise_conv<T>(c, call.launcher()); });
}

void packed_into(Tensor y, Tensor x, Tensor packed, int64_t kernel, int64_t stride, Padding padding,
                 std::string activation) {
  Call call("depthwise_conv", x);
  DepthwiseConvCall c = convolution(call, y, x, kernel, stride, padding, activation);
  launch(call, c, x, packed);
}

void pool_packed_into(Tensor y, Tensor sums, Tensor x, Tensor packed, int64_t kernel, int64_t stride, Padding padding,
                      std::string activation) {
  Call call("depthwise_conv_pool", x);
  DepthwiseConvCall c = convolution(call, y, x, kernel, stride, padding, activation);
  c.sums = call.floats(sums, "sums", {c.geometry.n, c.geometry.pool_tiles(), c.geometry.c});
  launch(call, c, x, packed);
}

void gate_packed_into(Tensor y, Tensor gates, Tensor x, Tensor packed, int64_t kernel, int64_t stride, Padding padding,
                      std::string activation, int64_t squeeze, std::string se_activation, std::string gate) {
  Call call("depthwise_conv_gate", x);
  const DType dtype = dtype_of(x, "x");
  DepthwiseConvGateCall c{};
  c.convolution = convolution(call, y, x, kernel, stride, padding, activation);
  const ConvGeometry& g = c.convolution.geometry;
  const int64_t matrix = 4 * squeeze * g.c;
  const auto weights = call.unpack(packed, packed_for(PackedKind::kDepthwiseGate, dtype, c.convolution.activation),
                                   {weight_bytes(g, dtype), 4 * g.c, matrix, 4 * squeeze, matrix, 4 * g.c});
  c.convolution.weight = weights[0];
  c.convolution.bias = static_cast<const float*>(weights[1]);
  c.squeeze = squeeze;
  c.squeeze_activation = parse_activation(se_activation);
  c.gate = parse_gate(gate);
  c.w1 = static_cast<const float*>(weights[2]);
  c.b1 = static_cast<const float*>(weights[3]);
  c.w2 = static_cast<const float*>(weights[4]);
  c.b2 = static_cast<const float*>(weights[5]);
  c.gates = call.floats(gates, "gates", {g.n, g.c});
  with_storage(dtype, [&]<class T>() {
    c.workspace = call.workspace(depthwise_conv_gate_workspace<T>(c));
    if (depthwise_conv_gate_has_tail<T>(c)) c.tickets = call.zeros(g.n);
    launch_depthwise_conv_gate<T>(c, call.launcher());
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(effnet_fast, CUDA, m) {
  m.impl("depthwise_conv_packed_into", TORCH_BOX(&packed_into));
  m.impl("depthwise_conv_pool_packed_into", TORCH_BOX(&pool_packed_into));
  m.impl("depthwise_conv_gate_packed_into", TORCH_BOX(&gate_packed_into));
}

}  // namespace effnet_fast::cuda
