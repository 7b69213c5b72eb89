// Registration of fused_mbconv for the CPU; the kernel is fused_mbconv.h. Its packed weights are those of its parts,
// one behind the other: the k x k expansion and the projection.
#include "fused_mbconv_shape.h"

#include "program.h"

namespace effnet_fast {
namespace {

using torch::headeronly::ScalarType;

Tensor pack_fused_mbconv(Tensor w_expand, OptionalTensor b_expand, Tensor w_project, OptionalTensor b_project,
                         std::string activation, std::string isa) {
  parse_activation(activation);
  Weight holders[4];
  const PackRequest expand = matrix_request(w_expand, b_expand, isa, PackedKind::kConv, holders);
  const PackRequest project = matrix_request(w_project, b_project, isa, PackedKind::kMatrix, holders + 2);
  STD_TORCH_CHECK(expand.out_channels == project.in_channels,
                  "w_expand and w_project disagree about the expanded channels: ", expand.out_channels, ", ",
                  project.in_channels);
  return pack_parts({expand, project}, w_expand);
}

void packed_into(Tensor y, Tensor x, Tensor packed, int64_t expanded, int64_t out_channels, int64_t kernel,
                 int64_t stride, Padding padding, std::string activation, bool residual) {
  const Image s = nhwc(x, "x");
  const DType dtype = dtype_of(x, "x");
  const FusedMBConvPacked parts = unpack_fused_mbconv(packed, s.c, expanded, out_channels, kernel);
  check_same_dtype(parts.expand, dtype);
  check_same_dtype(parts.project, dtype);
  const ConvGeometry g = geometry_of(s, kernel, stride, padding);
  check_image(y, "y", {s.n, out_channels, g.out_h(), g.out_w()}, dtype);
  STD_TORCH_CHECK(!residual || (s.c == out_channels && s.h == g.out_h() && s.w == g.out_w()),
                  "residual needs an output of the shape of x");
  kernels_for(parts.expand)
      .fused_mbconv(
          {g, dtype, x.data_ptr(), parts.expand, parts.project, y.data_ptr(), parse_activation(activation), residual},
          pytorch_threads());
}

void into(Tensor y, Tensor x, Tensor w_expand, OptionalTensor b_expand, Tensor w_project, OptionalTensor b_project,
          int64_t stride, Padding padding, std::string activation, bool residual) {
  const Tensor packed = pack_fused_mbconv(w_expand, b_expand, w_project, b_project, activation, "auto");
  packed_into(y, x, packed, w_expand.size(0), w_project.size(0), w_expand.size(2), stride, padding, activation,
              residual);
}

// Bytes that the threads keep for themselves, all together, in a call of this shape with the active instruction set.
int64_t scratch_bytes(int64_t n, int64_t channels, int64_t h, int64_t w, int64_t expanded, int64_t kernel,
                      int64_t stride, Padding padding, ScalarType dtype, int64_t threads) {
  const KernelTable& kernels = kernels_of(active_isa());
  const bool pairs = dtype == ScalarType::BFloat16 && kernels.bf16_pairs;
  const ConvGeometry g = geometry_of({n, channels + (pairs && channels % 2), h, w}, kernel, stride, padding);
  const FusedMBConvShape shape(g, expanded);
  return std::min(threads, n * shape.blocks) * shape.task_bytes(pairs ? 2 : 4, pairs && expanded % 2 == 0 ? 2 : 4);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(effnet_fast, m) {
  m.def(
      "fused_mbconv_scratch_bytes(int n, int channels, int h, int w, int expanded, int kernel, int stride, "
      "int[4] padding, ScalarType dtype, int threads) -> int");
}

STABLE_TORCH_LIBRARY_IMPL(effnet_fast, CPU, m) {
  m.impl("pack_fused_mbconv", TORCH_BOX(&pack_fused_mbconv));
  m.impl("fused_mbconv_into", TORCH_BOX(&into));
  implement<&packed_into>(m, "fused_mbconv_packed_into");
}

STABLE_TORCH_LIBRARY_IMPL(effnet_fast, CompositeExplicitAutograd, m) {
  m.impl("fused_mbconv_scratch_bytes", TORCH_BOX(&scratch_bytes));
}

}  // namespace effnet_fast
