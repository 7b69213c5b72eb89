// squeeze_excite_gate: from the shape of a call to its launches. Torch-free.
#pragma once

#include "launch.h"
#include "squeeze_excite_gate.cuh"

namespace effnet_fast::cuda {

struct SqueezeExciteGateCall {
  int64_t images, tiles, channels, squeeze;
  int64_t count;  // pixels behind the sums of one image
  int64_t multiprocessors;
  Activation activation;
  Gate gate;
  const float* sums;  // [images, tiles, channels]
  const float *w1, *b1, *w2, *b2;
  float* y;          // [images, channels]
  float* workspace;  // squeeze_excite_gate_workspace() values, of any content
};

// Few tiles are added up by every block that needs them, which costs less than a launch; more where multiprocessors
// are idle anyway: 16 tiles of B0's widest layer are 73 KiB for each of 6 blocks.
inline bool squeeze_excite_reduces(const SqueezeExciteGateCall& call) {
  const bool idle = call.images * divide_up(call.squeeze, SqueezeTraits<4, 1>::kWarps) <= call.multiprocessors;
  return call.tiles > (idle ? 16 : 4);
}

inline int64_t squeeze_excite_gate_workspace(const SqueezeExciteGateCall& call) {
  const int64_t totals = squeeze_excite_reduces(call) ? call.channels : 0;
  return call.images * (totals + call.squeeze);
}

// Launches Kernel<4, ...> or Kernel<1, ...>: whether 16-byte accesses are possible.
template <class Function>
void with_vector(bool aligned, Function&& function) {
  if (aligned)
    function.template operator()<4>();
  else
    function.template operator()<1>();
}

template <class Launcher>
void launch_squeeze_excite_gate(const SqueezeExciteGateCall& call, Launcher& launcher) {
  const bool whole =
      call.channels % 4 == 0 && is_aligned(call.sums) && is_aligned(call.w1) && is_aligned(call.workspace);
  const int channels = static_cast<int>(call.channels), squeeze = static_cast<int>(call.squeeze);
  const int images = static_cast<int>(call.images);
  // Behind the totals, whose number is a multiple of 4 where that matters.
  float* squeezed = call.workspace + squeeze_excite_gate_workspace(call) - call.images * call.squeeze;
  const float* sums = call.sums;
  int tiles = static_cast<int>(call.tiles);

  with_vector(whole, [&]<int kVector>() {
    if (squeeze_excite_reduces(call)) {
      using Traits = ReduceTilesTraits<kVector>;
      const Extent grid{grid_extent(call.images), grid_extent(divide_up(call.channels, Traits::kChannels))};
      launcher.template run<&reduce_tiles_kernel<Traits>>(
          LaunchShape{grid, Traits::kThreads, Traits::kSharedBytes, true},
          ReduceTilesArgs{call.sums, call.workspace, tiles, channels});
      sums = call.workspace;
      tiles = 1;
    }
    const SqueezeArgs args{sums,   call.w1, call.b1,  squeezed, 1.0f / static_cast<float>(call.count),
                           images, tiles,   channels, squeeze,  call.activation};
    const auto squeeze_images = [&]<int kImages>() {
      using Traits = SqueezeTraits<kVector, kImages>;
      const Extent grid{grid_extent(divide_up(call.images, kImages)),
                        grid_extent(divide_up(call.squeeze, Traits::kWarps))};
      const auto shared = static_cast<unsigned>(Traits::shared_bytes(call.channels));
      launcher.template run<&squeeze_kernel<Traits>>(LaunchShape{grid, Traits::kThreads, shared, true}, args);
    };
    // Four images a block quarter the weight traffic, if enough blocks remain.
    const int64_t blocks = call.images * divide_up(call.squeeze, SqueezeTraits<kVector, 1>::kWarps);
    if (blocks >= 4 * call.multiprocessors)
      squeeze_images.template operator()<4>();
    else
      squeeze_images.template operator()<1>();
  });

  const Extent grid{grid_extent(divide_up(call.images, ExciteTraits::kBlockImages)),
                    grid_extent(divide_up(call.channels, ExciteTraits::kChannels))};
  const auto shared = static_cast<unsigned>(ExciteTraits::shared_bytes(call.squeeze));
  const int pitch = static_cast<int>(ExciteTraits::pitch(call.squeeze));
  launcher.template run<&excite_kernel<ExciteTraits>>(
      LaunchShape{grid, ExciteTraits::kThreads, shared, true},
      ExciteArgs{squeezed, call.w2, call.b2, call.y, images, channels, squeeze, pitch, call.gate});
}

}  // namespace effnet_fast::cuda
