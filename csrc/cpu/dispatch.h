// Which instruction sets this machine runs, and which one is used. Torch-free.
#pragma once

#include <string>
#include <string_view>

#include "kernels.h"

namespace effnet_fast {

bool supported(Isa isa);

// The best supported set, or the one named by the environment variable EFFNET_FAST_CPU_ISA (read once).
// Throws std::invalid_argument for a name that is unknown or that this machine does not run.
Isa active_isa();

// "auto" or a name in kIsaNames that this machine runs; throws std::invalid_argument otherwise.
Isa parse_isa(std::string_view name);

const KernelTable& kernels_of(Isa isa);

// Names of the supported sets, best first, separated by commas.
std::string supported_isas();

}  // namespace effnet_fast
