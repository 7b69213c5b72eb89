// What the CPU library says of itself.
#include "binding.h"

namespace effnet_fast {
namespace {

std::string cpu_isa() { return kIsaNames[static_cast<int>(active_isa())]; }
std::string cpu_isas() { return supported_isas(); }

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(effnet_fast, m) {
  m.def("cpu_isa() -> str");
  m.def("cpu_isas() -> str");
}

STABLE_TORCH_LIBRARY_IMPL(effnet_fast, CompositeExplicitAutograd, m) {
  m.impl("cpu_isa", TORCH_BOX(&cpu_isa));
  m.impl("cpu_isas", TORCH_BOX(&cpu_isas));
}

}  // namespace effnet_fast
