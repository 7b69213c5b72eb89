// The Python module of an operator (tests/emulation/build.py links one for each, so that they do not wait for each
// other): one function, whatever the operator.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "operators.h"

namespace py = pybind11;
using namespace effnet_fast::emulation;

// `inputs` and `outputs` are name -> (address, bytes) of host memory that the caller keeps alive.
using Tensors = std::map<std::string, std::pair<uintptr_t, int64_t>>;

static int64_t emulate(const std::string& op, const Tensors& inputs, const Tensors& outputs,
                       std::map<std::string, int64_t> integers, std::map<std::string, std::string> texts,
                       uint64_t seed) {
  Arguments arguments;
  arguments.integers = std::move(integers);
  arguments.texts = std::move(texts);
  for (const auto& [tensors, role] : {std::pair(&inputs, Role::kInput), std::pair(&outputs, Role::kOutput)}) {
    for (const auto& [name, memory] : *tensors) {
      arguments.tensors[name] = {reinterpret_cast<void*>(memory.first), memory.second, role};
    }
  }
  return call(op, arguments, seed);
}

PYBIND11_MODULE(effnet_fast_emulation, m) {
  py::register_local_exception<EmulationError>(m, "EmulationError", PyExc_RuntimeError);
  m.def("emulate", &emulate, py::arg("op"), py::arg("inputs"), py::arg("outputs"), py::arg("integers"),
        py::arg("texts"), py::arg("seed"));
}
