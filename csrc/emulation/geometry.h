// The geometry of a convolution from named arguments.
#pragma once

#include "../common/geometry.h"
#include "operators.h"

namespace effnet_fast::emulation {

// `channels`: the argument that says how many the convolution has.
inline ConvGeometry geometry_of(const Arguments& arguments, const char* channels = "c") {
  return {arguments.integer("n"),      arguments.integer(channels), arguments.integer("h"),   arguments.integer("w"),
          arguments.integer("kernel"), arguments.integer("stride"), arguments.integer("top"), arguments.integer("left"),
          arguments.integer("bottom"), arguments.integer("right")};
}

}  // namespace effnet_fast::emulation
