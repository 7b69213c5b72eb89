// Vectors of output channels in panels: which of a matrix's columns are packed, and multiplied, together. Torch-free.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../common/geometry.h"

namespace effnet_fast {

// Panels of up to `most` vectors, shared as evenly as they can be: four vectors in panels of three make two and two
// rather than three and one, because a single vector cannot hide the latency of the multiply-add. Every panel but the
// last is a multiple of `unit` vectors, which divides `most`.
struct PanelSplit {
  int64_t vectors, most, unit, units, count;
  PanelSplit(int64_t vectors, int64_t most, int64_t unit)
      : vectors(vectors), most(most), unit(unit), units(ceil_div(vectors, unit)), count(ceil_div(units, most / unit)) {}
  int64_t first_vector(int64_t panel) const { return std::min(panel * units / count * unit, vectors); }
  int width_of(int64_t panel) const { return static_cast<int>(first_vector(panel + 1) - first_vector(panel)); }
};

}  // namespace effnet_fast
