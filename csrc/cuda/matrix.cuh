// The matrix product that pointwise_conv and head_pool share: rows of a map by the rows of a weight, on the tensor
// cores, in float32.
//
// A block walks over tiles of kRows x kColumns outputs. What it reads arrives in pieces of 64 values a row through a
// ring of kStages buffers filled by cp.async, and the ring flows on from one tile into the next, so that neither a
// short sum (K = 16) nor an epilogue drains it. Two kinds of tile:
//
//   resident   the weights of the block's columns stay in shared memory for its life, and rows stream past: for layers
//              that are bound by bandwidth
//   staged     a stage has a piece of the weights too, and the columns are the tile's own: for long sums and wide
//              outputs. With kSplit warps for the same outputs, each makes every kSplit-th step of the sum: for small
//              maps, where a sum's length is the time
//
// A tile's rows come in groups of 64 (16 for the smallest maps), and a group lies in one image, so that a gate is a
// vector to each warp and a pooled sum has one owner; two images of 7 x 7 are one tile of 128 rows. The residual is one
// more piece of the ring.
#pragma once

#include "activation.cuh"
#include "launch.h"

namespace effnet_fast::cuda {

inline constexpr int kGroupRows = 64;  // where a tile says nothing else
inline constexpr int kPiece = 64;      // values of a row in a stage: 128 bytes, all 32 banks

// kGroups x kColumnWarps x kSplit warps with kWarpRows rows, a group, and kWarpColumns columns each. kBlocks blocks
// share a multiprocessor, as far as registers go.
template <int kGroups_, int kColumnWarps_, int kWarpColumns_, bool kResident_, int kStages_, int kBlocks_,
          int kSplit_ = 1, int kWarpRows_ = kGroupRows>
struct MatrixTile {
  static constexpr int kGroups = kGroups_, kColumnWarps = kColumnWarps_, kWarpColumns = kWarpColumns_;
  static constexpr bool kResident = kResident_;
  static constexpr int kStages = kStages_, kBlocks = kBlocks_, kSplit = kSplit_, kWarpRows = kWarpRows_;
  static constexpr int kRows = kGroups * kWarpRows, kColumns = kColumnWarps * kWarpColumns;
  static constexpr int kThreads = 32 * kGroups * kColumnWarps * kSplit;
};

template <class T_, class Tile, bool kGate_>
struct MatrixTraits : Tile {
  using T = T_;
  static constexpr bool kGate = kGate_;
  static constexpr int kRowFragments = Tile::kWarpRows / 16, kColumnFragments = Tile::kWarpColumns / 8;  // of a warp
  static constexpr int kLoadRows = Tile::kThreads / 8;  // rows that the block's threads load at once
  // Neighbouring columns that a thread makes, and the fragments they come from.
  static constexpr int kRun = Tile::kWarpColumns < 32 ? Tile::kWarpColumns / 4 : 8, kRunFragments = kRun / 2;

  // Shared memory: bias of a resident tile, ring, then resident weights or partial sums. A stage: rows, weights, gates,
  // bias of a staged tile (with the first piece of its sums); in values of T, and whole lines of 128 bytes.
  static constexpr int kStageRows = Tile::kRows * kPiece;
  static constexpr int kStageWeights = Tile::kResident ? 0 : Tile::kColumns * kPiece;
  static constexpr int kStageGates = kGate ? Tile::kGroups * kPiece * 2 : 0;  // float32
  static constexpr int kStageBias = Tile::kResident ? 0 : static_cast<int>(round_up(Tile::kColumns * 2, 64));
  static constexpr int kStage = kStageRows + kStageWeights + kStageGates + kStageBias;
  static constexpr int kBiasBytes = Tile::kResident ? Tile::kColumns * 4 : 0;
  static constexpr int kRingBytes = Tile::kStages * kStage * 2;
  static constexpr int kPartialBytes = (Tile::kSplit - 1) * Tile::kRows * Tile::kColumns * 4;
  static constexpr int64_t shared_bytes(int64_t k) {
    return kBiasBytes + kRingBytes + kPartialBytes + (Tile::kResident ? round_up(k, kPiece) * Tile::kColumns * 2 : 0);
  }

  static_assert(sizeof(T) == 2);
  static_assert(Tile::kWarpColumns % 16 == 0 && kPiece % Tile::kWarpColumns == 0);  // see output_column(), residual
  static_assert(Tile::kStages >= 2 && Tile::kWarpRows % kLoadRows == 0 && kLoadRows % 8 == 0);
  static_assert(kBiasBytes % 128 == 0 && kStage % 64 == 0);  // see at_step()
  static_assert(Tile::kSplit == 1 || (Tile::kGroups == 1 && Tile::kColumnWarps == 1 && !Tile::kResident));
  static_assert(Tile::kColumns % kLoadRows == 0 && Tile::kColumns / 4 <= Tile::kThreads);
};

template <class T>
struct MatrixArgs {
  Global<const T> x;         // [rows, k]
  Global<const T> weight;    // [columns, k]
  Global<const float> bias;  // [columns] or null
  Global<const float> gate;  // [images, k]; null unless kGate
  Global<const T> residual;  // [rows, columns] or null
  int k, columns;            // multiples of 8
};

// Up to kWarpRows rows of one image.
struct RowGroup {
  int image;
  int64_t first;  // of the map
  int count;      // 0 and below: none
};

template <class Traits>
class MatrixLoop {
 public:
  using T = typename Traits::T;
  static constexpr int kRowFragments = Traits::kRowFragments, kColumnFragments = Traits::kColumnFragments;
  // Of a warp. Fragment i * kColumnFragments + j has, with g = lane / 4 and t = lane % 4, rows 16 i + g ([0], [1]) and
  // 16 i + g + 8 ([2], [3]) at columns 32 (j / 4) + 8 t + 2 (j % 4) and + 1: of every 32 columns a thread has 8
  // neighbours, 16 bytes of a row, and a quad of threads 64 bytes. Nothing needs to be exchanged before a store. (Warps
  // of 16 columns: 16 (j / 2) + 4 t + 2 (j % 2), 8 bytes.)
  using Sums = float[kRowFragments * kColumnFragments][4];

  __device__ explicit MatrixLoop(const MatrixArgs<T>& args)
      : args_(args),
        warp_split_(thread() / 32 % Traits::kSplit),
        warp_group_(thread() / 32 / Traits::kSplit / Traits::kColumnWarps),
        warp_column_(warp_column(thread() / 32 / Traits::kSplit)),
        pieces_((args.k + kPiece - 1) / kPiece) {}

  __device__ int warp_group() const { return warp_group_; }

  // For each tile from 0 to tiles - 1, by a warp of those with columns to make: finish(tile, sums, residual), where
  // residual is the stage to give to add_residual(). rows_of(tile, group) says which rows a tile has and
  // column_of(tile) its first column, the same for all tiles where weights are resident. All threads call it, and a
  // block must have a tile.
  template <class RowsOf, class ColumnOf, class Finish>
  __device__ __forceinline__ void run(int tiles, RowsOf rows_of, ColumnOf column_of, Finish finish) {
    // Weights do not depend on the launch before: they travel while it drains.
    int load_column = column_of(0);
    load_bias(Traits::kResident ? resident_bias() : staged_bias(stage(0)), load_column);
    constexpr int kAhead = Traits::kStages - 1;
    for (int piece = 0; piece < pieces_ && (Traits::kResident || piece < kAhead); piece++) {
      load_weights(Traits::kResident ? resident_weights(piece) : stage(piece) + Traits::kStageRows, piece, load_column);
    }
    ptx::grid_dependency_wait();

    Source source;
    int load_tile = 0, load_piece = 0;
    const auto load_next = [&](int to, bool with_weights) {
      if (load_tile < tiles) {
        const bool is_x = load_piece < pieces_;
        const int pitch = is_x ? args_.k : args_.columns;
        if (load_piece == 0) {
          load_column = column_of(load_tile);
          open(source, args_.x, pitch, 0, load_tile, rows_of);
          if (with_weights) load_bias(staged_bias(stage(to)), load_column);
        }
        if (load_piece == pieces_) open(source, args_.residual, pitch, load_column, load_tile, rows_of);
        load_rows(stage(to), source, pitch);
        if (is_x && with_weights) load_weights(stage(to) + Traits::kStageRows, load_piece, load_column);
        if (is_x && Traits::kGate) load_gates(stage(to), load_piece, source.image);
        if (++load_piece == all_pieces(load_column)) {
          load_piece = 0;
          if (++load_tile == tiles) ptx::grid_dependency_launch();
        }
      }
      ptx::cp_async_commit();  // also where there is nothing left, so that the wait below counts right
    };
#pragma unroll 1
    for (int s = 0; s < kAhead; s++) load_next(s, !Traits::kResident && s >= pieces_);

    Sums sums;
    int read_stage = 0;
    for (int tile = 0; tile < tiles; tile++) {
      first_column_ = column_of(tile);
      const int pieces = all_pieces(first_column_);
      // The piece behind which this warp's sums are done: its residual's, or the last.
      const int last_piece = args_.residual ? pieces_ + warp_column_ / kPiece : pieces_ - 1;
      const bool has_columns = warp_column_ < args_.columns - first_column_;
#pragma unroll 1
      for (int piece = 0; piece < pieces; piece++) {
        ptx::cp_async_wait<Traits::kStages - 2>();
        ptx::sync_threads();  // this piece is there for all, and all have left the stage that is loaded next
        load_next(read_stage == 0 ? kAhead : read_stage - 1, !Traits::kResident);
        const Shared<T> from = stage(read_stage);
        if (++read_stage == Traits::kStages) read_stage = 0;
        if (!has_columns) continue;
        if (piece == 0) start(Traits::kResident ? resident_bias() : staged_bias(from), sums);
        if (piece < pieces_) multiply(from, piece, sums);
        if (piece != last_piece) continue;
        if constexpr (Traits::kSplit > 1) {
          if (!add_up(sums)) continue;
        }
        finish(tile, sums, from);
      }
    }
  }

  // The first of this thread's rows in the group, every eighth of which is its own, and of its columns, of which it has
  // kRun in every 4 kRun.
  __device__ static int thread_row() { return thread() % 32 / 4; }
  __device__ int thread_column() const { return first_column_ + warp_column_ + thread() % 4 * Traits::kRun; }
  // Its values in row thread_row() + 8 i and kRun columns from thread_column() + 8 j on, j a multiple of kRunFragments.
  __device__ __forceinline__ static float& value(Sums& sums, int i, int j, int v) {
    return sums[i / 2 * kColumnFragments + j + v / 2][i % 2 * 2 + v % 2];
  }

  __device__ __forceinline__ void add_residual(Shared<T> stage, Sums& sums) const {
#pragma unroll
    for (int j = 0; j < kColumnFragments; j += Traits::kRunFragments) {
      if (thread_column() + 8 * j >= args_.columns) continue;
      // Rows are 8 apart and the chunk's place is the same in all; behind the group's end they are zeros.
      const int row = warp_group_ * Traits::kWarpRows + thread_row();
      const int column = warp_column_ % kPiece + 8 * j + thread() % 4 * Traits::kRun;
      const Shared<T> from = stage + (row * kPiece + swizzle(row, column / 8) + column % 8);
#pragma unroll
      for (int i = 0; i < 2 * kRowFragments; i++) {
        float other[Traits::kRun];
        unpack(load<Pack<T, Traits::kRun>>(from + 8 * i * kPiece), other);
#pragma unroll
        for (int v = 0; v < Traits::kRun; v++) value(sums, i, j, v) += other[v];
      }
    }
  }

 private:
  __device__ static int thread() { return threadIdx.x; }

  // Eight consecutive rows put one chunk of 8 values at eight different places of their 128 bytes, so that ldmatrix,
  // which reads it from eight rows at once, meets every bank once. A cp.async of 8 threads fills a whole row.
  __device__ static int swizzle(int row, int chunk) { return (chunk ^ (row % 8)) * 8; }

  // Of every 32 (4 kRun) rows of weights in shared memory, the c-th of fragment j is output column
  // 8 (c / 2) + 2 j + c % 2: see Sums.
  __device__ static int output_column(int row) {
    constexpr int kColumns = 4 * Traits::kRun;
    const int j = row % kColumns / 8, c = row % 8;
    return row / kColumns * kColumns + c / 2 * Traits::kRun + 2 * j + c % 2;
  }

  // Warps take turns on the four schedulers of a multiprocessor. In a tile that is not as wide as the others only the
  // first columns have work, so the groups of the second four warps begin with the other half of the columns: half
  // the columns then keep all four tensor cores busy, and not two of them twice.
  __device__ static int warp_column(int warp) {
    return (warp + warp / 4 * (Traits::kColumnWarps / 2)) % Traits::kColumnWarps * Traits::kWarpColumns;
  }

  // Of a tile's sums, and its residual.
  __device__ int all_pieces(int first_column) const {
    if (!args_.residual) return pieces_;
    const int columns = args_.columns - first_column;
    return pieces_ + ((columns < Traits::kColumns ? columns : Traits::kColumns) + kPiece - 1) / kPiece;
  }

  __device__ static Shared<float> resident_bias() { return shared_memory<float>(); }
  __device__ static Shared<float> staged_bias(Shared<T> stage) {
    return {(stage + (Traits::kStageRows + Traits::kStageWeights + Traits::kStageGates)).address};
  }
  __device__ static Shared<T> stage(int s) { return shared_memory<T>(Traits::kBiasBytes) + s * Traits::kStage; }
  __device__ static Shared<T> resident_weights(int piece) {
    return shared_memory<T>(Traits::kBiasBytes + Traits::kRingBytes) + piece * (Traits::kColumns * kPiece);
  }

  // The map that is being loaded, from this thread's chunk and first row of each group on.
  struct Source {
    Global<const T> from[Traits::kGroups];
    int rows[Traits::kGroups];  // that are left of the group
    int columns;                // from this thread's chunk to the end of the map's row
    int image;                  // of the gates that this thread loads, 16 threads a group; negative: none
  };

  // This thread's chunk of a piece, and the first of its rows.
  __device__ static int load_chunk() { return thread() % 8; }
  __device__ static int load_row() { return thread() / 8; }
  __device__ static int load_place() { return load_row() * kPiece + swizzle(load_row(), load_chunk()); }
  // Behind the end of a row a chunk of zeros completes a step of 16 values; nobody reads further.
  __device__ static bool is_read(int columns_left) { return columns_left >= 0; }

  __device__ void load_bias(Shared<float> to, int first_column) const {
    if (thread() < Traits::kColumns / 4) {
      const int column = first_column + 4 * thread();
      cp_async<16>(to + 4 * thread(), args_.bias + column, args_.bias && column < args_.columns);
    }
  }

  __device__ __forceinline__ void load_weights(Shared<T> to, int piece, int first_column) const {
    const int k = piece * kPiece + 8 * load_chunk();
    if (!is_read(args_.k - k)) return;
    const Global<const T> from = args_.weight + static_cast<int64_t>(first_column) * args_.k + k;
#pragma unroll
    for (int r = 0; r < Traits::kColumns; r += Traits::kLoadRows) {
      const int column = output_column(load_row() + r);
      const bool inside = k < args_.k && first_column + column < args_.columns;
      cp_async<16>(to + (load_place() + r * kPiece), from + column * args_.k, inside);
    }
  }

  template <class RowsOf>
  __device__ __forceinline__ void open(Source& source, Global<const T> map, int pitch, int first_column, int tile,
                                       RowsOf rows_of) const {
    const int column = first_column + 8 * load_chunk();
    source.columns = pitch - column;
#pragma unroll
    for (int g = 0; g < Traits::kGroups; g++) {
      const RowGroup group = rows_of(tile, g);
      source.from[g] = map + (group.first + load_row()) * pitch + column;
      source.rows[g] = group.count - load_row();
      if (thread() / 16 == g) source.image = group.count > 0 ? group.image : -1;
    }
  }

  // The next piece of all rows.
  __device__ __forceinline__ void load_rows(Shared<T> to, Source& source, int pitch) const {
    if (is_read(source.columns)) {
#pragma unroll
      for (int g = 0; g < Traits::kGroups; g++) {
        const int rows = source.columns > 0 ? source.rows[g] : 0;
#pragma unroll
        for (int r = 0; r < Traits::kWarpRows; r += Traits::kLoadRows) {
          cp_async<16>(to + (load_place() + (g * Traits::kWarpRows + r) * kPiece), source.from[g] + r * pitch,
                       r < rows);
        }
      }
    }
    source.columns -= kPiece;
#pragma unroll
    for (int g = 0; g < Traits::kGroups; g++) source.from[g] = source.from[g] + kPiece;
  }

  __device__ __forceinline__ void load_gates(Shared<T> stage, int piece, int image) const {
    const int k = piece * kPiece + thread() % 16 * 4;
    if (thread() / 16 >= Traits::kGroups || !is_read(args_.k - k / 8 * 8)) return;
    cp_async<16>(gates(stage, thread() / 16) + thread() % 16 * 4,
                 args_.gate + static_cast<int64_t>(image) * args_.k + k, k < args_.k && image >= 0);
  }
  __device__ static Shared<float> gates(Shared<T> stage, int group) {
    return Shared<float>{(stage + (Traits::kStageRows + Traits::kStageWeights)).address} + group * kPiece;
  }

  __device__ __forceinline__ void start(Shared<float> bias, Sums& sums) const {
    constexpr int kRun = Traits::kRun, kRunFragments = Traits::kRunFragments;
#pragma unroll
    for (int j = 0; j < kColumnFragments; j += kRunFragments) {
      const Shared<float> from = bias + (warp_column_ + 8 * j + thread() % 4 * kRun);
      float values[kRun / 4][4];
#pragma unroll
      for (int v = 0; v < kRun / 4; v++) unpack(load<Pack<float, 4>>(from + 4 * v), values[v]);
      if (warp_split_ != 0) {
#pragma unroll
        for (int v = 0; v < kRun; v++) values[v / 4][v % 4] = 0.0f;
      }
#pragma unroll
      for (int i = 0; i < kRowFragments; i++) {
#pragma unroll
        for (int f = 0; f < kRunFragments; f++) {
          float (&sum)[4] = sums[i * kColumnFragments + j + f];
          sum[0] = sum[2] = values[f / 2][f % 2 * 2];
          sum[1] = sum[3] = values[f / 2][f % 2 * 2 + 1];
        }
      }
    }
  }

  // What 16 values of the sum need of both operands.
  struct Fragments {
    uint32_t x[kRowFragments][4];
    uint32_t weight[kColumnFragments][2];
    float gate[2][2];  // at columns 2t, 2t + 1 and 2t + 8, 2t + 9
  };

  // Where a lane's rows begin for ldmatrix: of x row lane % 16 and chunk lane / 16, of the weights row lane % 8 + 8 for
  // the upper half of the warp and chunk lane / 8 % 2.
  __device__ __forceinline__ Shared<T> lane_rows(Shared<T> stage) const {
    const int row = ptx::lane() % 16, chunk = ptx::lane() / 16;
    return stage + ((warp_group_ * Traits::kWarpRows + row) * kPiece + swizzle(row, chunk));
  }
  __device__ __forceinline__ Shared<T> lane_weights(Shared<T> weights) const {
    const int row = ptx::lane() / 16 * 8 + ptx::lane() % 8, chunk = ptx::lane() / 8 % 2;
    return weights + ((warp_column_ + row) * kPiece + swizzle(row, chunk));
  }

  // A step of 16 values is two chunks further, which flips the same bits of every lane's address: rows begin at
  // multiples of 128 bytes.
  __device__ static Shared<T> at_step(Shared<T> address, int step) {
    return {address.address ^ static_cast<uint32_t>(32 * step)};
  }

  __device__ __forceinline__ void load_fragments(Shared<T> rows, Shared<T> weights, Shared<float> gate, int step,
                                                 Fragments& f) const {
#pragma unroll
    for (int j = 0; j < kColumnFragments; j += 2) {
      uint32_t both[4];
      ldmatrix(both, at_step(weights, step) + j * 8 * kPiece);
      f.weight[j][0] = both[0], f.weight[j][1] = both[1];
      f.weight[j + 1][0] = both[2], f.weight[j + 1][1] = both[3];
    }
    if constexpr (Traits::kGate) {
      unpack(load<Pack<float, 2>>(gate + 16 * step), f.gate[0]);
      unpack(load<Pack<float, 2>>(gate + (16 * step + 8)), f.gate[1]);
    }
#pragma unroll
    for (int i = 0; i < kRowFragments; i++) ldmatrix(f.x[i], at_step(rows, step) + i * 16 * kPiece);
  }

  __device__ __forceinline__ void multiply_step(Fragments& f, Sums& sums) const {
#pragma unroll
    for (int i = 0; i < kRowFragments; i++) {
      if constexpr (Traits::kGate) {
        // In float32, and rounded to storage once: the contract. 5 instructions a register, 20 for up to 8 mma.
#pragma unroll
        for (int r = 0; r < 4; r++) {
          const float low = low_of<T>(f.x[i][r]) * f.gate[r / 2][0], high = high_of<T>(f.x[i][r]) * f.gate[r / 2][1];
          f.x[i][r] = pack_word<T>(low, high);
        }
      }
#pragma unroll
      for (int j = 0; j < kColumnFragments; j++) mma<T>(sums[i * kColumnFragments + j], f.x[i], f.weight[j]);
    }
  }

  __device__ __forceinline__ void multiply(Shared<T> stage, int piece, Sums& sums) const {
    constexpr int kSteps = kPiece / 16;
    const Shared<T> rows = lane_rows(stage);
    const Shared<T> weights = lane_weights(Traits::kResident ? resident_weights(piece) : stage + Traits::kStageRows);
    const Shared<float> gate = gates(stage, warp_group_) + 2 * (thread() % 4);
    const int steps = (args_.k - piece * kPiece + 15) / 16;
    Fragments fragments[2];
    if (Traits::kSplit == 1 && steps >= kSteps) {
      // The fragments of the next step travel while this one's products are made.
      load_fragments(rows, weights, gate, 0, fragments[0]);
#pragma unroll
      for (int step = 0; step < kSteps; step++) {
        if (step + 1 < kSteps) load_fragments(rows, weights, gate, step + 1, fragments[(step + 1) % 2]);
        multiply_step(fragments[step % 2], sums);
      }
    } else {
#pragma unroll 1
      for (int step = warp_split_; step < (steps < kSteps ? steps : kSteps); step += Traits::kSplit) {
        load_fragments(rows, weights, gate, step, fragments[0]);
        multiply_step(fragments[0], sums);
      }
    }
  }

  // The sums of all splits, in their order, in those of split 0, which returns true. All threads call it.
  __device__ __forceinline__ bool add_up(Sums& sums) const {
    constexpr int kFragments = kRowFragments * kColumnFragments;
    // 16 bytes a thread, a warp's side by side.
    const auto partial = [&](int split, int fragment) {
      return shared_memory<float>(Traits::kBiasBytes + Traits::kRingBytes) +
             (((split - 1) * kFragments + fragment) * 32 + thread() % 32) * 4;
    };
    if (warp_split_ != 0) {
#pragma unroll
      for (int f = 0; f < kFragments; f++) store(partial(warp_split_, f), pack<float>(sums[f]));
    }
    ptx::sync_threads();
    if (warp_split_ != 0) return false;
#pragma unroll
    for (int split = 1; split < Traits::kSplit; split++) {
#pragma unroll
      for (int f = 0; f < kFragments; f++) {
        float other[4];
        unpack(load<Pack<float, 4>>(partial(split, f)), other);
#pragma unroll
        for (int v = 0; v < 4; v++) sums[f][v] += other[v];
      }
    }
    return true;
  }

  const MatrixArgs<T>& args_;
  const int warp_split_, warp_group_, warp_column_, pieces_;
  int first_column_ = 0;  // of the tile that is made
};

}  // namespace effnet_fast::cuda
