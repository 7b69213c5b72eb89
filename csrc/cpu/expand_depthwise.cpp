// Registration of expand_depthwise and expand_depthwise_pool for the CPU; the kernel is expand_depthwise.h.
#include "program.h"

namespace effnet_fast {
namespace {

Tensor pack_expand_depthwise(Tensor w_expand, OptionalTensor b_expand, Tensor w_dw, OptionalTensor b_dw,
                             std::string expand_activation, std::string activation, std::string isa) {
  parse_activation(expand_activation);
  parse_activation(activation);
  Weight expand_holders[2], depthwise_holders[2];
  const PackRequest expand = matrix_request(w_expand, b_expand, isa, PackedKind::kMatrix, expand_holders);
  const PackRequest depthwise = depthwise_request(w_dw, b_dw, isa, depthwise_holders);
  return pack_parts({expand, depthwise}, w_expand);
}

void convolve(const Tensor& y, float* sums, const Tensor& x, const ExpandDepthwisePacked& packed, const ConvGeometry& g,
              const std::string& expand_activation, const std::string& activation) {
  const DType dtype = dtype_of(x, "x");
  check_same_dtype(packed.expand, dtype);
  check_same_dtype(packed.depthwise, dtype);
  check_image(y, "y", {g.n, g.c, g.out_h(), g.out_w()}, dtype);
  kernels_for(packed.expand)
      .expand_depthwise({{g, dtype, nullptr, packed.depthwise, y.data_ptr(), sums, parse_activation(activation)},
                         x.data_ptr(),
                         packed.expand,
                         parse_activation(expand_activation)},
                        pytorch_threads());
}

// The depthwise convolution's geometry: x's pixels with the expanded channels.
ConvGeometry expanded_geometry(const Image& x, int64_t expanded, int64_t kernel, int64_t stride,
                               const Padding& padding) {
  return geometry_of({x.n, expanded, x.h, x.w}, kernel, stride, padding);
}

void packed_into(Tensor y, Tensor x, Tensor packed, int64_t expanded, std::string expand_activation, int64_t kernel,
                 int64_t stride, Padding padding, std::string activation) {
  const Image s = nhwc(x, "x");
  convolve(y, nullptr, x, unpack_pair(packed, s.c, expanded, kernel),
           expanded_geometry(s, expanded, kernel, stride, padding), expand_activation, activation);
}

void into(Tensor y, Tensor x, Tensor w_expand, OptionalTensor b_expand, std::string expand_activation, Tensor w_dw,
          OptionalTensor b_dw, int64_t stride, Padding padding, std::string activation) {
  packed_into(y, x, pack_expand_depthwise(w_expand, b_expand, w_dw, b_dw, expand_activation, activation, "auto"),
              w_expand.size(0), expand_activation, w_dw.size(2), stride, padding, activation);
}

void pool_packed_into(Tensor y, Tensor sums, Tensor x, Tensor packed, int64_t expanded, std::string expand_activation,
                      int64_t kernel, int64_t stride, Padding padding, std::string activation) {
  const Image s = nhwc(x, "x");
  const ConvGeometry g = expanded_geometry(s, expanded, kernel, stride, padding);
  check_floats(sums, "sums", {s.n, g.pool_tiles(), expanded});
  convolve(y, static_cast<float*>(sums.data_ptr()), x, unpack_pair(packed, s.c, expanded, kernel), g, expand_activation,
           activation);
}

void pool_into(Tensor y, Tensor sums, Tensor x, Tensor w_expand, OptionalTensor b_expand, std::string expand_activation,
               Tensor w_dw, OptionalTensor b_dw, int64_t stride, Padding padding, std::string activation) {
  pool_packed_into(y, sums, x,
                   pack_expand_depthwise(w_expand, b_expand, w_dw, b_dw, expand_activation, activation, "auto"),
                   w_expand.size(0), expand_activation, w_dw.size(2), stride, padding, activation);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(effnet_fast, CPU, m) {
  m.impl("pack_expand_depthwise", TORCH_BOX(&pack_expand_depthwise));
  m.impl("expand_depthwise_into", TORCH_BOX(&into));
  implement<&packed_into>(m, "expand_depthwise_packed_into");
  m.impl("expand_depthwise_pool_into", TORCH_BOX(&pool_into));
  implement<&pool_packed_into>(m, "expand_depthwise_pool_packed_into");
}

}  // namespace effnet_fast
