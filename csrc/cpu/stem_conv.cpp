// Registration of stem_conv for the CPU; the kernel is conv.h.
#include "program.h"

namespace effnet_fast {
namespace {

using torch::headeronly::ScalarType;

Tensor pack_stem_conv(Tensor weight, OptionalTensor bias, std::string activation, std::string isa) {
  parse_activation(activation);
  Weight holders[2];
  return pack_tensor(matrix_request(weight, bias, isa, PackedKind::kConv, holders), weight);
}

void packed_into(Tensor y, Tensor image, Tensor packed, int64_t out_channels, int64_t kernel, int64_t stride,
                 Padding padding, std::string activation, OptionalTensor mean, OptionalTensor std, ScalarType) {
  STD_TORCH_CHECK(image.dim() == 4 && image.is_cpu(), "image is not a CPU tensor of 4 dimensions");
  const Image s{image.size(0), image.size(1), image.size(2), image.size(3)};
  const DType image_dtype = dtype_of(image, "image"), dtype = dtype_of(y, "y");
  const PackedHeader* header = unpack(packed, PackedKind::kConv, s.c, out_channels, kernel);
  check_same_dtype(header, dtype);
  const ConvGeometry g = geometry_of(s, kernel, stride, padding);
  check_image(y, "y", {s.n, out_channels, g.out_h(), g.out_w()}, dtype);
  if (mean) check_floats(*mean, "mean", {s.c});
  if (std) check_floats(*std, "std", {s.c});
  // Pixel p becomes (p * unit - mean) / std. The mean is subtracted before the scaling: where a pixel and the mean
  // nearly cancel, p * scale + shift would lose what is left.
  const bool bytes = image_dtype == DType::kUInt8;
  std::vector<float> means(s.c, 0.0f), inverse_stds(s.c, 1.0f);
  for (int64_t c = 0; c < s.c; c++) {
    if (mean) means[c] = static_cast<const float*>(mean->data_ptr())[c];
    if (std) inverse_stds[c] = 1.0f / static_cast<const float*>(std->data_ptr())[c];
  }
  kernels_for(header).conv(
      {g, image_dtype, dtype, image.data_ptr(), image.stride(0), image.stride(1), image.stride(2), image.stride(3),
       bytes ? 1.0f / 255.0f : 1.0f, bytes || mean || std ? means.data() : nullptr, inverse_stds.data(), header,
       nullptr, y.data_ptr(), parse_activation(activation)},
      pytorch_threads());
}

void into(Tensor y, Tensor image, Tensor weight, OptionalTensor bias, int64_t stride, Padding padding,
          std::string activation, OptionalTensor mean, OptionalTensor std, ScalarType dtype) {
  packed_into(y, image, pack_stem_conv(weight, bias, activation, "auto"), weight.size(0), weight.size(2), stride,
              padding, activation, mean, std, dtype);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(effnet_fast, CPU, m) {
  m.impl("pack_stem_conv", TORCH_BOX(&pack_stem_conv));
  m.impl("stem_conv_into", TORCH_BOX(&into));
  implement<&packed_into>(m, "stem_conv_packed_into");
}

}  // namespace effnet_fast
