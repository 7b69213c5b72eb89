// What the launch code of the matrix kernels shares: the tiles that are compiled, and which of them a product takes.
// Torch-free.
#pragma once

#include <algorithm>
#include <array>
#include <limits>

#include "launch.h"
#include "matrix.cuh"

namespace effnet_fast::cuda {

// Few, since each is compiled for two storage types and three kinds of epilogue. Three or four stages keep 16 to 96 KiB
// of a block in flight, and two or three blocks share a multiprocessor, where 26 KiB would cover the latency of an
// H200's memory at its bandwidth.
using Resident64x128 = MatrixTile<1, 4, 32, true, 4, 3>;
using Resident128x64 = MatrixTile<2, 2, 32, true, 3, 3>;
// Eight warps of 64 x 64: what fits the registers of a multiprocessor. A row that comes from the L2 cache is for
// 256 outputs, and a column for 128: 85 products a value. 128 x 128 make 64, and 128 x 64 make 43. The ring has
// 149 KiB, which an A100 has too.
using Staged128x256 = MatrixTile<2, 4, 64, false, 3, 1>;
using Staged256x128 = MatrixTile<4, 2, 64, false, 3, 1>;
// Warps of 64 x 64: a shared-memory cycle and a half per mma, less than tensor cores take; 64 x 32 need over two.
using Staged128x128 = MatrixTile<2, 2, 64, false, 3, 2>;
using Staged128x64 = MatrixTile<2, 2, 32, false, 3, 3>;
// For a few images: enough blocks for all multiprocessors, which read a third less than tiles of 64 x 32.
using Staged64x64 = MatrixTile<2, 2, 32, false, 4, 3, 1, 32>;
// For small problems, where few blocks have long sums: more blocks, and a quarter of the sum for each warp. 16 x 16 are
// the least: an mma has 16 rows, and an ldmatrix of the weights 16 columns. Twelve stages of 4 KiB are what one
// multiprocessor needs in flight.
using Split64x32 = MatrixTile<1, 1, 32, false, 4, 2, 4>;
using Split64x16 = MatrixTile<1, 1, 16, false, 6, 2, 4>;
using Split16x32 = MatrixTile<1, 1, 32, false, 8, 3, 4, 16>;
using Split16x16 = MatrixTile<1, 1, 16, false, 12, 3, 4, 16>;

// Blocks of `shared_bytes` that share a multiprocessor with `available` bytes; CUDA takes 1 KiB of each for itself.
inline int64_t blocks_that_fit(int64_t shared_bytes, int64_t available) { return available / (shared_bytes + 1024); }

// images x rows by columns sums of length k. Rows of different images share no group.
struct MatrixShape {
  int64_t images, rows, columns, k;
  int64_t multiprocessors, multiprocessor_shared_bytes;

  template <class Tile>
  int64_t row_tiles() const {
    return divide_up(images * divide_up(rows, Tile::kWarpRows), Tile::kGroups);
  }
  template <class Tile>
  int64_t column_blocks() const {
    return divide_up(columns, Tile::kColumns);
  }
  template <class Tile>
  int64_t tiles() const {
    return row_tiles<Tile>() * column_blocks<Tile>();
  }
  // That share a multiprocessor; none where not even one fits.
  template <class Tile>
  int64_t blocks() const {
    const int64_t shared = MatrixTraits<half, Tile, true>::shared_bytes(k);
    return std::min<int64_t>(blocks_that_fit(shared, multiprocessor_shared_bytes), Tile::kBlocks);
  }
};

// Rates of a multiprocessor, in cycles and bytes a cycle: counted, or assumed where it says so, and never measured.
inline constexpr double kMmaCycles = 1.6;          // of an mma on an H200; an A100 takes 2
inline constexpr double kL2Bytes = 26;             // an H200's 6 TB/s, assumed, shared by all multiprocessors
inline constexpr double kPieceCycles = 100;        // of a piece at least: barrier, ldmatrix and mma behind each other
inline constexpr double kOutputCycles = 1.0 / 16;  // of an epilogue: one special function an output

// Of a tile of which `columns` are wanted, without its epilogue: whichever of tensor cores, shared memory and L2 cache
// takes longest. A warp reads a fragment of 512 bytes in 4 cycles, and a staged line of 128 bytes is written in one.
template <class Tile>
double tile_cycles(int64_t columns, int64_t k) {
  const int64_t column_warps = divide_up(columns, Tile::kWarpColumns);
  // Of eight warps half are enough for all tensor cores: see MatrixLoop::warp_column().
  const bool half_idle = Tile::kGroups * Tile::kColumnWarps > 4 && 2 * column_warps <= Tile::kColumnWarps;
  const double tensor = kMmaCycles * Tile::kRows * Tile::kColumns / 128 * (half_idle ? 0.5 : 1);
  const double fragments = Tile::kGroups * column_warps * (Tile::kWarpRows + Tile::kWarpColumns) / 16.0;
  const double lines = static_cast<double>(Tile::kRows + columns) / 4;
  const double bytes = static_cast<double>((Tile::kRows + columns) * 2 * k);
  return std::max(static_cast<double>(divide_up(k, 16)) * std::max(tensor, 4 * fragments + lines), bytes / kL2Bytes);
}

// Of the busiest multiprocessor. Blocks that share it hide each other's epilogues; one alone does not.
template <class Tile>
double staged_cycles(const MatrixShape& shape) {
  const int64_t blocks = shape.blocks<Tile>(), column_blocks = shape.column_blocks<Tile>();
  // Four warps of 64 x 64 hide nothing when they are alone, as on an A100.
  const bool idle = Tile::kThreads == 128 && Tile::kWarpColumns == 64 && blocks < 2;
  if (blocks < 1 || idle) return std::numeric_limits<double>::infinity();
  const int64_t rounds = divide_up(shape.tiles<Tile>(), shape.multiprocessors), waves = divide_up(rounds, blocks);
  const int64_t last_columns = shape.columns - (column_blocks - 1) * Tile::kColumns;
  const double full = tile_cycles<Tile>(Tile::kColumns, shape.k), last = tile_cycles<Tile>(last_columns, shape.k);
  const double mean = full + (last - full) / static_cast<double>(std::max<int64_t>(column_blocks, 1));
  const double tile = rounds == 1 && column_blocks > 1 ? full : mean;
  const double least = kPieceCycles * static_cast<double>(waves * divide_up(shape.k, kPiece));
  // Partial sums are written and read by 32 lanes a cycle.
  const double epilogue = Tile::kRows * Tile::kColumns * (kOutputCycles + 2.0 * (Tile::kSplit - 1) / 32);
  return std::max(static_cast<double>(rounds) * tile, least) + static_cast<double>(blocks > 1 ? 1 : rounds) * epilogue;
}

// The place among Tiles, from the largest to the smallest, of the one with the fewest cycles. It must not leave
// multiprocessors idle where another has work for all of them and takes at most a quarter longer: the count is no more
// exact than that, and a block that is alone waits for memory.
template <class... Tiles>
int choose_staged_tile(const MatrixShape& shape) {
  const std::array<double, sizeof...(Tiles)> cycles{staged_cycles<Tiles>(shape)...};
  const std::array<int64_t, sizeof...(Tiles)> tiles{shape.tiles<Tiles>()...};
  size_t best = 0, busy = cycles.size();
  for (size_t i = 1; i < cycles.size(); i++) {
    if (cycles[i] < cycles[best]) best = i;
  }
  for (size_t i = 0; i < cycles.size(); i++) {
    const bool good = tiles[i] >= shape.multiprocessors && cycles[i] <= 1.25 * cycles[best];
    if (good && (busy == cycles.size() || cycles[i] < cycles[busy])) busy = i;
  }
  return static_cast<int>(busy < cycles.size() ? busy : best);
}

}  // namespace effnet_fast::cuda
