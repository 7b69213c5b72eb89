// Registration of stem_conv for CUDA; the kernels are stem_conv.cuh, compiled in one file a storage type.
#include "stem_conv_launch.h"

#include "binding.h"

namespace effnet_fast::cuda {

extern template void launch_stem_conv<float>(const StemConvCall&, Launcher&);
extern template void launch_stem_conv<half>(const StemConvCall&, Launcher&);
extern template void launch_stem_conv<bfloat16>(const StemConvCall&, Launcher&);

namespace {

void packed_into(Tensor y, Tensor image, Tensor packed, int64_t out_channels, int64_t kernel, int64_t stride,
                 Padding padding, std::string activation, OptionalTensor mean, OptionalTensor std,
                 torch::headeronly::ScalarType) {
  Call call("stem_conv", image);
  STD_TORCH_CHECK(image.dim() == 4, "image has ", image.dim(), " dimensions, expected 4 (N, C, H, W)");
  const Image s{image.size(0), image.size(1), image.size(2), image.size(3)};
  const DType dtype = dtype_of(y, "y"), image_dtype = dtype_of(image, "image");
  STD_TORCH_CHECK(image_dtype == DType::kUInt8 || image_dtype == DType::kFloat32 || image_dtype == dtype,
                  "image is neither uint8 nor float32 nor of y's dtype");
  const ConvGeometry g = geometry_of(s, kernel, stride, padding);
  call.check_image(y, "y", {s.n, out_channels, g.out_h(), g.out_w()}, dtype);
  const Activation parsed = parse_activation(activation);
  const auto weights = call.unpack(packed, packed_for(PackedKind::kStem, dtype, parsed),
                                   {out_channels * kernel * kernel * s.c * size_of(dtype), out_channels * 4});
  const StemConvCall c{g,
                       out_channels,
                       call.launcher().multiprocessors(),
                       parsed,
                       image_dtype,
                       {image.stride(0), image.stride(1), image.stride(2), image.stride(3)},
                       image.data_ptr(),
                       call.floats(mean, "mean", {s.c}),
                       call.floats(std, "std", {s.c}),
                       weights[0],
                       static_cast<const float*>(weights[1]),
                       y.data_ptr()};
  with_storage(dtype, [&]<class T>() { launch_stem_conv<T>(c, call.launcher()); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(effnet_fast, CUDA, m) { m.impl("stem_conv_packed_into", TORCH_BOX(&packed_into)); }

}  // namespace effnet_fast::cuda
