// What the CUDA library says of itself.
#include "binding.h"

namespace effnet_fast::cuda {
namespace {

// Of what pack_<op> makes of sections of these sizes: see packed.h.
int64_t cuda_packed_length(std::string op, torch::headeronly::ScalarType dtype, bool halved,
                           std::vector<int64_t> section_bytes) {
  return packed_length({parse_packed_kind(op), dtype_of(dtype, "weight"), halved}, section_bytes);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(effnet_fast, m) {
  m.def("cuda_packed_length(str op, ScalarType dtype, bool halved, int[] section_bytes) -> int");
}

STABLE_TORCH_LIBRARY_IMPL(effnet_fast, CompositeExplicitAutograd, m) {
  m.impl("cuda_packed_length", TORCH_BOX(&cuda_packed_length));
}

}  // namespace effnet_fast::cuda
