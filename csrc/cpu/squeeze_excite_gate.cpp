// Registration of squeeze_excite_gate for the CPU; the kernel is squeeze_excite_gate.h.
#include "program.h"

namespace effnet_fast {
namespace {

Tensor pack_squeeze_excite_gate(Tensor w1, OptionalTensor b1, Tensor w2, OptionalTensor b2, std::string activation,
                                std::string isa) {
  parse_activation(activation);
  STD_TORCH_CHECK(w1.dim() >= 2, "w1 has ", w1.dim(), " dimensions, expected 2 or 4");
  PackRequest request{PackedKind::kSqueezeExcite, parse_isa(isa), w1.size(1), w1.size(1), 1, 0, {}, {}, {}, {}, {}, {}};
  Weight holders[4];
  add_squeeze_excite(request, w1, b1, w2, b2, holders);
  return pack_tensor(request, w1);
}

void packed_into(Tensor y, Tensor sums, int64_t count, Tensor packed, int64_t squeeze, std::string activation,
                 std::string gate) {
  STD_TORCH_CHECK(sums.dim() == 3, "sums has ", sums.dim(), " dimensions, expected 3 (N, tiles, C)");
  const int64_t images = sums.size(0), tiles = sums.size(1), channels = sums.size(2);
  check_floats(sums, "sums", {images, tiles, channels});
  check_floats(y, "y", {images, channels});
  STD_TORCH_CHECK(count >= 1, "count = ", count, ", expected at least 1");
  const PackedHeader* header = unpack(packed, PackedKind::kSqueezeExcite, channels, channels, 1, squeeze);
  kernels_for(header).squeeze_excite_gate(
      {images, tiles, count, static_cast<const float*>(sums.data_ptr()), header, static_cast<float*>(y.data_ptr()),
       parse_activation(activation), parse_gate(gate)},
      pytorch_threads());
}

void into(Tensor y, Tensor sums, int64_t count, Tensor w1, OptionalTensor b1, Tensor w2, OptionalTensor b2,
          std::string activation, std::string gate) {
  packed_into(y, sums, count, pack_squeeze_excite_gate(w1, b1, w2, b2, activation, "auto"), w1.size(0), activation,
              gate);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(effnet_fast, CPU, m) {
  m.impl("pack_squeeze_excite_gate", TORCH_BOX(&pack_squeeze_excite_gate));
  m.impl("squeeze_excite_gate_into", TORCH_BOX(&into));
  implement<&packed_into>(m, "squeeze_excite_gate_packed_into");
}

}  // namespace effnet_fast
