// Registration of expand_depthwise and expand_depthwise_pool for CUDA; the kernel is expand_depthwise.cuh, compiled in
// one file a storage type.
#include "expand_depthwise_composed.h"

#include "binding.h"

namespace effnet_fast::cuda {

extern template void launch_expand_depthwise<half>(const ExpandDepthwiseCall&, const ExpandDepthwisePlan&, Launcher&);
extern template void launch_expand_depthwise<bfloat16>(const ExpandDepthwiseCall&, const ExpandDepthwisePlan&,
                                                       Launcher&);
extern template void launch_pointwise_conv<float>(const PointwiseConvCall&, Launcher&);
extern template void launch_pointwise_conv<half>(const PointwiseConvCall&, Launcher&);
extern template void launch_pointwise_conv<bfloat16>(const PointwiseConvCall&, Launcher&);
extern template void launch_depthwise_conv<float>(const DepthwiseConvCall&, Launcher&, const SqueezeExciteTail&);
extern template void launch_depthwise_conv<half>(const DepthwiseConvCall&, Launcher&, const SqueezeExciteTail&);
extern template void launch_depthwise_conv<bfloat16>(const DepthwiseConvCall&, Launcher&, const SqueezeExciteTail&);

namespace {

void launch(Call& call, const Tensor& y, const Tensor* sums, const Tensor& x, const Tensor& packed, int64_t expanded,
            const std::string& expand_activation, int64_t kernel, int64_t stride, const Padding& padding,
            const std::string& activation) {
  const DType dtype = dtype_of(x, "x");
  const Image image = call.nhwc(x, "x");
  ExpandDepthwiseCall c{};
  ConvGeometry& g = c.shape.geometry;
  g = geometry_of({image.n, expanded, image.h, image.w}, kernel, stride, padding);
  call.check_image(y, "y", {g.n, g.c, g.out_h(), g.out_w()}, dtype);
  c.shape.in_channels = image.c;
  c.shape.sums = sums != nullptr;
  c.shape.multiprocessors = call.launcher().multiprocessors();
  c.shape.multiprocessor_shared_bytes = call.launcher().multiprocessor_shared_bytes();
  c.expand_activation = parse_activation(expand_activation);
  c.activation = parse_activation(activation);
  const bool halved = size_of(dtype) == 2 && c.expand_activation == Activation::kSilu;
  const ExpandDepthwiseSections s =
      expand_depthwise_sections(dtype, image.c, g.c, kernel, same_halving(c.expand_activation, c.activation));
  const auto weights = call.unpack(
      packed, packed_for(halved ? PackedKind::kExpandSiluDepthwise : PackedKind::kExpandDepthwise, dtype, c.activation),
      {s.expand_weight, s.expand_bias, s.weight, s.bias, s.expand, s.taps});
  const ExpandWeights parts{weights[0], static_cast<const float*>(weights[1])};
  c.weight = weights[2];
  c.bias = static_cast<const float*>(weights[3]);
  c.expand = static_cast<const uint32_t*>(weights[4]);
  c.taps = static_cast<const uint32_t*>(weights[5]);
  c.x = x.data_ptr();
  c.y = y.data_ptr();
  if (sums) c.sums = call.floats(*sums, "sums", {g.n, g.pool_tiles(), g.c});

  const ExpandDepthwisePlan plan = plan_expand_depthwise(c, size_of(dtype) == 2);
  if (plan.variant < 0) {
    void* map = call.workspace(divide_up(expanded_bytes(c, dtype), 4));
    with_storage(dtype, [&]<class T>() { launch_composed_expand_depthwise<T>(c, parts, map, call.launcher()); });
  } else if (dtype == DType::kFloat16) {
    launch_expand_depthwise<half>(c, plan, call.launcher());
  } else {
    launch_expand_depthwise<bfloat16>(c, plan, call.launcher());
  }
}

void packed_into(Tensor y, Tensor x, Tensor packed, int64_t expanded, std::string expand_activation, int64_t kernel,
                 int64_t stride, Padding padding, std::string activation) {
  Call call("expand_depthwise", x);
  launch(call, y, nullptr, x, packed, expanded, expand_activation, kernel, stride, padding, activation);
}

void pool_packed_into(Tensor y, Tensor sums, Tensor x, Tensor packed, int64_t expanded, std::string expand_activation,
                      int64_t kernel, int64_t stride, Padding padding, std::string activation) {
  Call call("expand_depthwise_pool", x);
  launch(call, y, &sums, x, packed, expanded, expand_activation, kernel, stride, padding, activation);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(effnet_fast, CUDA, m) {
  m.impl("expand_depthwise_packed_into", TORCH_BOX(&packed_into));
  m.impl("expand_depthwise_pool_packed_into", TORCH_BOX(&pool_packed_into));
}

}  // namespace effnet_fast::cuda
