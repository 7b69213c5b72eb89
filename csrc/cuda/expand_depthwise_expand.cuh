// expand_depthwise: a chunk of expanded channels of the tile, by tensor cores, from shared memory to shared memory.
//
// 16 pixels by kChunk channels at a time. The weights of a chunk stay in registers: two words for each mma. At 24 input
// channels a value takes 3.5 issue slots: an FFMA and a MUFU for SiLU, half a conversion, half an mma; the MUFU binds.
#pragma once

#include "expand_depthwise_tile.cuh"

namespace effnet_fast::cuda {

// Activates 16 channels of 16 pixels, rounds them and stores them at `to`, the place of this lane: see expand_place.
template <class Traits>
__device__ __forceinline__ void store_expanded(Activation activation, float (&sums)[2][4],
                                               Shared<typename Traits::T> to) {
  using T = typename Traits::T;
  activate_all<Traits::kSilu, T>(activation, sums);
  uint32_t words[4];
#pragma unroll
  for (int j = 0; j < 2; j++) {
    words[2 * j] = pack_word<T>(sums[j][0], sums[j][1]);
    words[2 * j + 1] = pack_word<T>(sums[j][2], sums[j][3]);
  }
  if (ptx::has_stmatrix()) {
    stmatrix(to, words);
  } else {
#pragma unroll
    for (int i = 0; i < 4; i++) store(to + (i % 2 * 8 * Traits::kPitch + i / 2 * 8), words[i]);
  }
}

// Elements from a tile of 16 x 16 to what this lane says where to store.
template <class Traits>
__device__ __forceinline__ int expand_place(int lane) {
  return ptx::has_stmatrix() ? lane % 16 * Traits::kPitch + lane / 16 * 8 : lane / 4 * Traits::kPitch + lane % 4 * 2;
}

// Products [first, end) of 16 pixels, in kSteps steps of 16 input channels; kHalf: the last one has 8, of the bias
// alone.
template <class Traits, int kSteps, bool kHalf>
__device__ __forceinline__ void expand_steps(const ExpandDepthwiseArgs<typename Traits::T>& args,
                                             Shared<typename Traits::T> pixels, Shared<typename Traits::T> expanded,
                                             int chunk, int first, int end) {
  using T = typename Traits::T;
  constexpr int kPairs = Traits::kPairs;
  const int lane = ptx::lane(), warp = threadIdx.x / 32;
  uint32_t weights[2 * kPairs][kSteps][2];
  const auto from_weights = args.expand + (static_cast<int64_t>(chunk) * kPairs * kSteps * 32 + lane) * 4;
#pragma unroll
  for (int pair = 0; pair < kPairs; pair++) {
#pragma unroll
    for (int step = 0; step < kSteps; step++) {
      const auto four = load_constant<Pack<T, 8>>(from_weights + (pair * kSteps + step) * 32 * 4);
#pragma unroll
      for (int i = 0; i < 4; i++) weights[2 * pair + i / 2][step][i % 2] = four.words[i];
    }
  }
  const float zero[4] = {};
  auto from = pixels + (((first + warp) * 16 + lane % 16) * args.x_pitch + lane / 16 * 8);
  auto to = expanded + ((first + warp) * 16 * Traits::kPitch + expand_place<Traits>(lane));
#pragma unroll 1
  for (int i = first + warp; i < end; i += Traits::kWarps) {
    float sums[kPairs][2][4];
#pragma unroll
    for (int step = 0; step < kSteps - kHalf; step++) {
      uint32_t a[4];
      ldmatrix(a, from + step * 16);
#pragma unroll
      for (int j = 0; j < 2 * kPairs; j++) {
        float (&sum)[4] = sums[j / 2][j % 2];
        if (step == 0)
          mma<T>(sum, a, weights[j][step], zero);
        else
          mma<T>(sum, a, weights[j][step], sum);
      }
    }
    if constexpr (kHalf) {
      uint32_t a[2];
      ldmatrix(a, from + (kSteps - 1) * 16);
#pragma unroll
      for (int j = 0; j < 2 * kPairs; j++) {
        float (&sum)[4] = sums[j / 2][j % 2];
        mma<T>(sum, a, weights[j][kSteps - 1][0], sum);
      }
    }
#pragma unroll
    for (int pair = 0; pair < kPairs; pair++) {
      store_expanded<Traits>(args.expand_activation, sums[pair], to + pair * 16);
    }
    from = from + Traits::kWarps * 16 * args.x_pitch;
    to = to + Traits::kWarps * 16 * Traits::kPitch;
  }
}

// The number of steps is one of the call: one of these loops runs, and the weights of the longest set the registers.
template <class Traits>
__device__ __forceinline__ void expand_chunk(const ExpandDepthwiseArgs<typename Traits::T>& args,
                                             Shared<typename Traits::T> pixels, Shared<typename Traits::T> expanded,
                                             int chunk, int first, int end) {
  const auto run = [&]<int kSteps>() {
    if constexpr (kSteps > 1) {
      if (args.in_channels % 16 == 0) {
        return expand_steps<Traits, kSteps, true>(args, pixels, expanded, chunk, first, end);
      }
    }
    expand_steps<Traits, kSteps, false>(args, pixels, expanded, chunk, first, end);
  };
  static_assert(Traits::kMaxSteps == 9);
  switch (args.in_channels / 16 + 1) {
    case 1: return run.template operator()<1>();
    case 2: return run.template operator()<2>();
    case 3: return run.template operator()<3>();
    case 4: return run.template operator()<4>();
    case 5: return run.template operator()<5>();
    case 6: return run.template operator()<6>();
    case 7: return run.template operator()<7>();
    case 8: return run.template operator()<8>();
    default: return run.template operator()<9>();
  }
}

}  // namespace effnet_fast::cuda
