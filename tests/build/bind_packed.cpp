// csrc/cuda/packed.h for Python, without a GPU or PyTorch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "../../csrc/cuda/packed.h"

using effnet_fast::DType;
using effnet_fast::cuda::PackedFor;

static PackedFor use(const std::string& op, int dtype, bool halved) {
  return {effnet_fast::cuda::parse_packed_kind(op), static_cast<DType>(dtype), halved};
}

PYBIND11_MODULE(effnet_fast_packed, m) {
  m.def("length", [](const std::string& op, int dtype, bool halved, const std::vector<int64_t>& sections) {
    return effnet_fast::cuda::packed_length(use(op, dtype, halved), sections);
  });
  m.def("problem",
        [](int64_t length, const std::string& op, int dtype, bool halved, const std::vector<int64_t>& sections) {
          return effnet_fast::cuda::packed_problem(length, use(op, dtype, halved), sections);
        });
}
