// Registration of squeeze_excite_gate for CUDA; the kernels are squeeze_excite_gate.cuh.
#include "squeeze_excite_gate_launch.h"

#include "binding.h"

namespace effnet_fast::cuda {

template void launch_squeeze_excite_gate(const SqueezeExciteGateCall&, Launcher&);

namespace {

void packed_into(Tensor y, Tensor sums, int64_t count, Tensor packed, int64_t squeeze, std::string activation,
                 std::string gate) {
  Call call("squeeze_excite_gate", sums);
  STD_TORCH_CHECK(sums.dim() == 3, "sums has ", sums.dim(), " dimensions, expected 3 (N, tiles, C)");
  STD_TORCH_CHECK(count >= 1, "count = ", count, ", expected at least 1");
  const int64_t images = sums.size(0), tiles = sums.size(1), channels = sums.size(2);
  const int64_t matrix = 4 * channels * squeeze;
  const auto weights = call.unpack(packed, {PackedKind::kSqueezeExcite, DType::kFloat32, false},
                                   {matrix, 4 * squeeze, matrix, 4 * channels});
  SqueezeExciteGateCall c{images,
                          tiles,
                          channels,
                          squeeze,
                          count,
                          call.launcher().multiprocessors(),
                          parse_activation(activation),
                          parse_gate(gate),
                          call.floats(sums, "sums", {images, tiles, channels}),
                          static_cast<const float*>(weights[0]),
                          static_cast<const float*>(weights[1]),
                          static_cast<const float*>(weights[2]),
                          static_cast<const float*>(weights[3]),
                          call.floats(y, "y", {images, channels}),
                          nullptr};
  c.workspace = call.workspace(squeeze_excite_gate_workspace(c));
  launch_squeeze_excite_gate(c, call.launcher());
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(effnet_fast, CUDA, m) { m.impl("squeeze_excite_gate_packed_into", TORCH_BOX(&packed_into)); }

}  // namespace effnet_fast::cuda
