// Registration of mbconv for the CPU; the kernel is mbconv.h. Its packed weights are those of its parts, one behind the
// other: expansion, if there is one; depthwise filter; squeeze-excite, if there is one; projection.
#include "mbconv_shape.h"

#include "program.h"

namespace effnet_fast {
namespace {

using torch::headeronly::ScalarType;

Tensor pack_mbconv(OptionalTensor w_expand, OptionalTensor b_expand, Tensor w_dw, OptionalTensor b_dw,
                   OptionalTensor w1, OptionalTensor b1, OptionalTensor w2, OptionalTensor b2, Tensor w_project,
                   OptionalTensor b_project, std::string activation, std::string isa) {
  parse_activation(activation);
  STD_TORCH_CHECK(w1.has_value() == w2.has_value(), "w1 and w2: give both or neither");
  Weight holders[10];
  std::vector<PackRequest> parts;
  if (w_expand) parts.push_back(matrix_request(*w_expand, b_expand, isa, PackedKind::kMatrix, holders));
  parts.push_back(depthwise_request(w_dw, b_dw, isa, holders + 2));
  const int64_t channels = parts.back().out_channels;
  if (w1) {
    PackRequest r{PackedKind::kSqueezeExcite, parse_isa(isa), channels, channels, 1, 0, {}, {}, {}, {}, {}, {}};
    add_squeeze_excite(r, *w1, b1, *w2, b2, holders + 4);
    parts.push_back(r);
  }
  parts.push_back(matrix_request(w_project, b_project, isa, PackedKind::kMatrix, holders + 8));
  STD_TORCH_CHECK(parts.back().in_channels == channels && (!w_expand || parts.front().out_channels == channels),
                  "w_expand, w_dw and w_project disagree about the expanded channels: ", parts.front().out_channels,
                  ", ", channels, ", ", parts.back().in_channels);
  return pack_parts(parts, w_dw);
}

void packed_into(Tensor y, Tensor x, Tensor packed, int64_t expanded, int64_t out_channels, int64_t kernel,
                 int64_t squeeze, int64_t stride, Padding padding, std::string activation, std::string se_activation,
                 std::string gate, bool residual) {
  const Image s = nhwc(x, "x");
  const DType dtype = dtype_of(x, "x");
  const MBConvPacked parts = unpack_mbconv(packed, s.c, expanded, out_channels, kernel, squeeze);
  for (const PackedHeader* part : {parts.expand, parts.depthwise, parts.project}) {
    if (part) check_same_dtype(part, dtype);
  }
  const ConvGeometry g = geometry_of({s.n, expanded, s.h, s.w}, kernel, stride, padding);
  check_image(y, "y", {s.n, out_channels, g.out_h(), g.out_w()}, dtype);
  STD_TORCH_CHECK(!residual || (s.c == out_channels && s.h == g.out_h() && s.w == g.out_w()),
                  "residual needs an output of the shape of x");
  kernels_for(parts.project)
      .mbconv({g, s.c, dtype, x.data_ptr(), parts.expand, parts.depthwise, parts.squeeze_excite, parts.project,
               y.data_ptr(), parse_activation(activation), parse_activation(se_activation), parse_gate(gate), residual},
              pytorch_threads());
}

void into(Tensor y, Tensor x, OptionalTensor w_expand, OptionalTensor b_expand, Tensor w_dw, OptionalTensor b_dw,
          OptionalTensor w1, OptionalTensor b1, OptionalTensor w2, OptionalTensor b2, Tensor w_project,
          OptionalTensor b_project, int64_t stride, Padding padding, std::string activation, std::string se_activation,
          std::string gate, bool residual) {
  const Tensor packed =
      pack_mbconv(w_expand, b_expand, w_dw, b_dw, w1, b1, w2, b2, w_project, b_project, activation, "auto");
  packed_into(y, x, packed, w_dw.size(0), w_project.size(0), w_dw.size(2), w1 ? w1->size(0) : 0, stride, padding,
              activation, se_activation, gate, residual);
}

// Bytes that the threads keep for themselves, all together, in a call of this shape with the active instruction set.
int64_t scratch_bytes(int64_t n, int64_t h, int64_t w, int64_t expanded, int64_t out_channels, int64_t kernel,
                      int64_t stride, Padding padding, bool squeeze_excite, ScalarType dtype, int64_t threads) {
  const KernelTable& kernels = kernels_of(active_isa());
  const bool pairs = dtype == ScalarType::BFloat16 && kernels.bf16_pairs && expanded % 2 == 0;
  const ConvGeometry g = geometry_of({n, expanded, h, w}, kernel, stride, padding);
  return MBConvShape(g, out_channels, squeeze_excite, kernels.width, pairs ? 2 : 4).scratch_bytes(threads);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(effnet_fast, m) {
  m.def(
      "mbconv_scratch_bytes(int n, int h, int w, int expanded, int out_channels, int kernel, int stride, "
      "int[4] padding, bool squeeze_excite, ScalarType dtype, int threads) -> int");
}

STABLE_TORCH_LIBRARY_IMPL(effnet_fast, CPU, m) {
  m.impl("pack_mbconv", TORCH_BOX(&pack_mbconv));
  m.impl("mbconv_into", TORCH_BOX(&into));
  implement<&packed_into>(m, "mbconv_packed_into");
}

STABLE_TORCH_LIBRARY_IMPL(effnet_fast, CompositeExplicitAutograd, m) {
  m.impl("mbconv_scratch_bytes", TORCH_BOX(&scratch_bytes));
}

}  // namespace effnet_fast
