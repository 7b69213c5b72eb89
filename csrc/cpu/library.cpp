// What the CPU library says of itself.
#include "binding.h"

namespace effnet_fast {
namespace {

std::string cpu_isa() { return kIsaNames[static_cast<int>(active_isa())]; }
std::string cpu_isas() { return supported_isas(); }

// Repeats one operation in registers on the calling thread; says how many it did. `kind`: an index into `Peak`.
int64_t cpu_peak(int64_t kind, int64_t iterations) {
  STD_TORCH_CHECK(kind >= 0 && kind <= 2 && iterations >= 0, "kind must be 0, 1 or 2, iterations at least 0; got ",
                  kind, ", ", iterations);
  return kernels_of(active_isa()).peak(static_cast<Peak>(kind), iterations);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(effnet_fast, m) {
  m.def("cpu_isa() -> str");
  m.def("cpu_isas() -> str");
  m.def("cpu_peak(int kind, int iterations) -> int");
}

STABLE_TORCH_LIBRARY_IMPL(effnet_fast, CompositeExplicitAutograd, m) {
  m.impl("cpu_isa", TORCH_BOX(&cpu_isa));
  m.impl("cpu_isas", TORCH_BOX(&cpu_isas));
  m.impl("cpu_peak", TORCH_BOX(&cpu_peak));
}

}  // namespace effnet_fast
