// Registration of stem_block_sums and stem_block for CUDA; the kernels are stem_block.cuh, compiled in one file a
// storage type. What they do not make is made by the kernels of other operators, through maps in memory.
#include "stem_block_launch.h"

#include "binding.h"

namespace effnet_fast::cuda {

extern template void launch_stem_block<half>(const StemBlockCall&, Launcher&);
extern template void launch_stem_block<bfloat16>(const StemBlockCall&, Launcher&);
extern template void launch_stem_conv<float>(const StemConvCall&, Launcher&);
extern template void launch_stem_conv<half>(const StemConvCall&, Launcher&);
extern template void launch_stem_conv<bfloat16>(const StemConvCall&, Launcher&);
extern template void launch_depthwise_conv<float>(const DepthwiseConvCall&, Launcher&, const SqueezeExciteTail&);
extern template void launch_depthwise_conv<half>(const DepthwiseConvCall&, Launcher&, const SqueezeExciteTail&);
extern template void launch_depthwise_conv<bfloat16>(const DepthwiseConvCall&, Launcher&, const SqueezeExciteTail&);
extern template void launch_pointwise_conv<float>(const PointwiseConvCall&, Launcher&);
extern template void launch_pointwise_conv<half>(const PointwiseConvCall&, Launcher&);
extern template void launch_pointwise_conv<bfloat16>(const PointwiseConvCall&, Launcher&);

namespace {

// Without weights, gate and outputs.
StemBlockCall stem_block_call(Call& call, const Tensor& image, DType dtype, int64_t channels, int64_t kernel,
                              int64_t filter, int64_t stride, const Padding& padding, const std::string& activation,
                              const OptionalTensor& mean, const OptionalTensor& std) {
  STD_TORCH_CHECK(image.dim() == 4, "image has ", image.dim(), " dimensions, expected 4 (N, C, H, W)");
  STD_TORCH_CHECK(filter >= 1 && filter % 2 == 1, "depthwise_kernel = ", filter, ", expected an odd one");
  const DType image_dtype = dtype_of(image, "image");
  STD_TORCH_CHECK(dtype != DType::kUInt8, "dtype is none that maps are stored in");
  STD_TORCH_CHECK(image_dtype == DType::kUInt8 || image_dtype == DType::kFloat32 || image_dtype == dtype,
                  "image is neither uint8 nor float32 nor of this call's dtype");
  const Image s{image.size(0), image.size(1), image.size(2), image.size(3)};
  StemBlockCall c{};
  c.stem.geometry = geometry_of(s, kernel, stride, padding);
  c.stem.out_channels = channels;
  c.stem.multiprocessors = call.launcher().multiprocessors();
  c.stem.activation = parse_activation(activation);
  c.stem.image_dtype = image_dtype;
  for (int i = 0; i < 4; i++) c.stem.image_strides[i] = image.stride(i);
  c.stem.image = image.data_ptr();
  c.stem.mean = call.floats(mean, "mean", {s.c});
  c.stem.std = call.floats(std, "std", {s.c});
  c.filter = filter;
  c.multiprocessor_shared_bytes = call.launcher().multiprocessor_shared_bytes();
  return c;
}

// Sets the weights, and launches.
void launch(Call& call, StemBlockCall& c, const Tensor& packed, PackedKind kind, DType dtype) {
  const int64_t channels = c.stem.out_channels, size = size_of(dtype);
  const int64_t stem = channels * c.stem.geometry.kernel * c.stem.geometry.kernel * c.stem.geometry.c * size;
  const int64_t filter = channels * c.filter * c.filter * size;
  const PackedFor use = packed_for(kind, dtype, c.stem.activation);
  const auto weights = c.out_channels == 0 ? call.unpack(packed, use, {stem, 4 * channels, filter, 4 * channels})
                                           : call.unpack(packed, use,
                                                         {stem, 4 * channels, filter, 4 * channels,
                                                          c.out_channels * channels * size, 4 * c.out_channels});
  c.stem.weight = weights[0];
  c.stem.bias = static_cast<const float*>(weights[1]);
  c.w_filter = weights[2];
  c.b_filter = static_cast<const float*>(weights[3]);
  if (c.out_channels > 0) {
    c.w_project = weights[4];
    c.b_project = static_cast<const float*>(weights[5]);
  }
  with_storage(dtype, [&]<class T>() {
    if constexpr (sizeof(T) == 2) {
      if (stem_block_is_fused<T>(c)) return launch_stem_block<T>(c, call.launcher());
    }
    const ConvGeometry g = c.filter_geometry();
    const int64_t floats = divide_up(g.n * g.h * g.w * channels * size, sizeof(float));
    c.stem_map = call.workspace(floats);
    c.filter_map = call.workspace(floats);
    launch_stem_block_parts<T>(c, call.launcher());
  });
}

void sums_packed_into(Tensor sums, Tensor image, Tensor packed, int64_t channels, int64_t kernel, int64_t filter,
                      int64_t stride, Padding padding, std::string activation, OptionalTensor mean, OptionalTensor std,
                      torch::headeronly::ScalarType dtype) {
  Call call("stem_block_sums", image);
  const DType storage = dtype_of(dtype, "dtype");
  StemBlockCall c =
      stem_block_call(call, image, storage, channels, kernel, filter, stride, padding, activation, mean, std);
  const ConvGeometry g = c.filter_geometry();
  c.sums = call.floats(sums, "sums", {g.n, g.pool_tiles(), g.c});
  launch(call, c, packed, PackedKind::kStemBlockSums, storage);
}

void packed_into(Tensor y, Tensor image, Tensor packed, int64_t channels, int64_t out_channels, int64_t kernel,
                 int64_t filter, int64_t stride, Padding padding, std::string activation, OptionalTensor gate,
                 OptionalTensor mean, OptionalTensor std, torch::headeronly::ScalarType dtype) {
  Call call("stem_block", image);
  STD_TORCH_CHECK(out_channels >= 1, "out_channels = ", out_channels, ", expected at least 1");
  const DType storage = dtype_of(dtype, "dtype");
  StemBlockCall c =
      stem_block_call(call, image, storage, channels, kernel, filter, stride, padding, activation, mean, std);
  const ConvGeometry g = c.filter_geometry();
  call.check_image(y, "y", {g.n, out_channels, g.h, g.w}, storage);
  c.out_channels = out_channels;
  c.gate = call.floats(gate, "gate", {g.n, g.c});
  c.y = y.data_ptr();
  launch(call, c, packed, PackedKind::kStemBlock, storage);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(effnet_fast, CUDA, m) {
  m.impl("stem_block_sums_packed_into", TORCH_BOX(&sums_packed_into));
  m.impl("stem_block_packed_into", TORCH_BOX(&packed_into));
}

}  // namespace effnet_fast::cuda
