// What the launch code of the matrix kernels shares: the tiles that are compiled, and how a choice becomes a type.
// Torch-free.
#pragma once

#include "launch.h"
#include "matrix.cuh"

namespace effnet_fast::cuda {

// Few, since each is compiled for two storage types and three kinds of epilogue. Three or four stages keep 16 to 64 KiB
// of a block in flight, and two or three blocks share a multiprocessor, where 26 KiB would cover the latency of an
// H200's memory at its bandwidth.
using Resident64x128 = MatrixTile<1, 4, 32, true, 4, 3>;
using Resident128x64 = MatrixTile<2, 2, 32, true, 3, 3>;
// Warps of 64 x 64: a shared-memory cycle and a half per mma, less than tensor cores take; 64 x 32 need over two.
using Staged128x128 = MatrixTile<2, 2, 64, false, 3, 2>;
using Staged128x64 = MatrixTile<2, 2, 32, false, 3, 3>;
// For small problems, where few blocks have long sums: the most blocks, and a quarter of the sum for each warp.
using Split64x32 = MatrixTile<1, 1, 32, false, 4, 2, 4>;

// Blocks of `shared_bytes` that share a multiprocessor with `available` bytes; CUDA takes 1 KiB of each for itself.
inline int64_t blocks_that_fit(int64_t shared_bytes, int64_t available) { return available / (shared_bytes + 1024); }

// Cycles that the busiest multiprocessor would spend on staged tiles, if its shared memory or its tensor cores were all
// that it waits for: a warp reads a fragment of 512 bytes in 4 cycles, 4 of rows and one for 16 columns a step, and a
// row of a stage is written in one. Counted and not measured.
template <class Tile>
double staged_cycles(int64_t row_groups, int64_t columns, int64_t k, int64_t multiprocessors) {
  constexpr int kSteps = kPiece / 16, kOutputs = Tile::kRows * Tile::kColumns;
  constexpr double kTensor = 1.6 * (kOutputs / 128) * kSteps;  // for an mma on an H200; an A100 takes 2
  constexpr double kShared =
      Tile::kGroups * Tile::kColumnWarps * kSteps * (4 + Tile::kWarpColumns / 16) * 4.0 + Tile::kRows + Tile::kColumns;
  constexpr double kAddUp = 2.0 * (Tile::kSplit - 1) * kOutputs / 32;  // partial sums are written and read
  const int64_t tiles = divide_up(row_groups, Tile::kGroups) * divide_up(columns, Tile::kColumns);
  const auto rounds = static_cast<double>(divide_up(tiles, multiprocessors));
  return rounds * (static_cast<double>(divide_up(k, kPiece)) * (kShared > kTensor ? kShared : kTensor) + kAddUp);
}

enum class StagedTile { k128x128, k128x64, kSplit64x32 };

// Of row_groups x columns sums of length k, by the cycles above.
inline StagedTile choose_staged_tile(int64_t row_groups, int64_t columns, int64_t k, int64_t multiprocessors,
                                     int64_t multiprocessor_shared_bytes) {
  const auto cycles = [&]<class Tile>() { return staged_cycles<Tile>(row_groups, columns, k, multiprocessors); };
  const double large = cycles.template operator()<Staged128x128>(), middle = cycles.template operator()<Staged128x64>(),
               small = cycles.template operator()<Split64x32>();
  if (small < middle && small < large) return StagedTile::kSplit64x32;
  // The largest tile has four warps, and hides nothing when it is alone on a multiprocessor, as on an A100.
  const int64_t shared = MatrixTraits<half, Staged128x128, true>::shared_bytes(k);
  const bool alone = blocks_that_fit(shared, multiprocessor_shared_bytes) < 2;
  return alone || middle < large ? StagedTile::k128x64 : StagedTile::k128x128;
}

}  // namespace effnet_fast::cuda
