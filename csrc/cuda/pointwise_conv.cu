// Registration of pointwise_conv for CUDA; the kernels are pointwise_conv.cuh, compiled in one file a storage type.
#include "pointwise_conv_launch.h"

#include "binding.h"

namespace effnet_fast::cuda {

extern template void launch_pointwise_conv<float>(const PointwiseConvCall&, Launcher&);
extern template void launch_pointwise_conv<half>(const PointwiseConvCall&, Launcher&);
extern template void launch_pointwise_conv<bfloat16>(const PointwiseConvCall&, Launcher&);

namespace {

void packed_into(Tensor y, Tensor x, Tensor packed, int64_t out_channels, std::string activation, OptionalTensor gate,
                 OptionalTensor residual) {
  Call call("pointwise_conv", x);
  const Image s = call.nhwc(x, "x"), out{s.n, out_channels, s.h, s.w};
  const DType dtype = dtype_of(x, "x");
  call.check_image(y, "y", out, dtype);
  if (residual) call.check_image(*residual, "residual", out, dtype);
  const Activation parsed = parse_activation(activation);
  const auto weights = call.unpack(packed, packed_for(PackedKind::kPointwise, dtype, parsed),
                                   {out_channels * s.c * size_of(dtype), out_channels * 4});
  const PointwiseConvCall c{s.n,
                            s.h * s.w,
                            s.c,
                            out_channels,
                            call.launcher().multiprocessors(),
                            call.launcher().multiprocessor_shared_bytes(),
                            parsed,
                            x.data_ptr(),
                            weights[0],
                            static_cast<const float*>(weights[1]),
                            call.floats(gate, "gate", {s.n, s.c}),
                            residual ? residual->data_ptr() : nullptr,
                            y.data_ptr()};
  with_storage(dtype, [&]<class T>() { launch_pointwise_conv<T>(c, call.launcher()); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(effnet_fast, CUDA, m) { m.impl("pointwise_conv_packed_into", TORCH_BOX(&packed_into)); }

}  // namespace effnet_fast::cuda
