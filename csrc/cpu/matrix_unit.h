// Products of bfloat16 pairs by a core's matrix unit (AMX), and the same tiles' last step. Included inside an
// instruction set's namespace; other sets have a MatrixUnit that does nothing.
//
// The unit has eight tiles of up to 16 rows of 64 bytes. One instruction adds 16 rows x 32 terms times 32 terms x 16
// columns to 16 x 16 float32 sums, in 16 cycles however small its operands are: 1.1 TMAC/s of a 2.2 GHz core whose
// float32 multiply-adds do 78 GMAC/s and whose vector instructions for such pairs do 35. It reads pixels where they
// lie, and panels as they are packed: 16 rows of a panel are 16 pairs of terms of every column.
#pragma once

#ifdef EFFNET_FAST_HAS_AMX

inline constexpr int kUnitRows = 16;   // of a tile
inline constexpr int kUnitTerms = 32;  // that one instruction sums

// What the eight tiles are: the sums of a panel's vectors, pixels and weights of 32 terms, pixels and weights of what
// is left over at a piece's end.
enum Tile { kSums = 0, kPixels = 4, kWeights = 5, kRestPixels = 6, kRestWeights = 7 };

template <int kTile>
ALWAYS_INLINE void read_tile(const void* first_row, int64_t row_bytes) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(first_row), "r"(row_bytes), "i"(kTile) : "memory");
}
template <int kTile>
ALWAYS_INLINE void write_tile(float* first_row) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(first_row), "r"(int64_t{64}), "i"(kTile) : "memory");
}
template <int kTo, int kPixelTile, int kWeightTile>
ALWAYS_INLINE void multiply_tiles() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kTo), "i"(kPixelTile), "i"(kWeightTile));
}

// A task's use of its core's unit: shaped when it is first needed (140 ns) and let go at the end, or the operating
// system would save the tiles, 8 KB, at every change of threads.
class MatrixUnit {
 public:
  MatrixUnit() = default;
  MatrixUnit(const MatrixUnit&) = delete;
  MatrixUnit& operator=(const MatrixUnit&) = delete;
  ~MatrixUnit() {
    if (rows_) asm volatile("tilerelease" : : : "memory");
  }

  // For tiles of `rows` rows, and pieces of whole 32 terms or with `rest` terms more.
  void shape(int rows, int rest) {
    if (rows == rows_ && rest == rest_) return;
    rows_ = rows, rest_ = rest;
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    static_assert(sizeof config == 64);
    auto set = [&](int tile, int tile_rows, int row_bytes) {
      config.rows[tile] = static_cast<uint8_t>(row_bytes ? tile_rows : 0);
      config.row_bytes[tile] = static_cast<uint16_t>(tile_rows ? row_bytes : 0);
    };
    for (int j = 0; j < kUnitVectors; j++) set(kSums + j, rows, 64);
    set(kPixels, rows, 64);
    set(kWeights, kUnitTerms / 2, 64);
    set(kRestPixels, rows, 2 * rest);
    set(kRestWeights, rest / 2, 64);
    asm volatile("ldtilecfg %0" : : "m"(config) : "memory");
  }

 private:
  int rows_ = 0, rest_ = 0;
};

// Rows in tiles of equal height, by as few as they need. The last tile may reach back over rows of the one before: of
// 49 pixels the four tiles of 13 begin at 0, 13, 26 and 36.
struct UnitTiles {
  int64_t count, rows;
  int height;
  explicit UnitTiles(int64_t rows)
      : count(ceil_div(rows, kUnitRows)), rows(rows), height(static_cast<int>(ceil_div(rows, count))) {}
  int64_t first(int64_t tile) const { return std::min(tile * height, rows - height); }
};

// sums += pixels x weights of one step, for every vector of the panel.
template <int kPixelTile, int kWeightTile, int... kVector>
ALWAYS_INLINE void multiply_step(const bfloat16* pixels, int64_t pixel_bytes, const float* panel,
                                 std::integer_sequence<int, kVector...>) {
  constexpr int64_t kPanelBytes = sizeof...(kVector) * 64;
  read_tile<kPixelTile>(pixels, pixel_bytes);
  ((read_tile<kWeightTile>(panel + kVector * Vec::kWidth, kPanelBytes),
    multiply_tiles<kSums + kVector, kPixelTile, kWeightTile>()),
   ...);
}

// out[vectors][height][W] = bias + pieces x panel, for rows from `row` on; vectors `vector_floats` apart.
template <int... kVector>
static void multiply_pieces(const Piece<bfloat16>* pieces, int64_t piece_count, int64_t row, const float* panel,
                            const float* bias, float* out, int64_t vector_floats,
                            std::integer_sequence<int, kVector...> vectors) {
  (read_tile<kSums + kVector>(bias + kVector * Vec::kWidth, 0), ...);  // the same row over and over
  for (int64_t p = 0; p < piece_count; p++) {
    const Piece<bfloat16>& piece = pieces[p];
    const bfloat16* pixels = piece.data + row * piece.stride;
    const int64_t pixel_bytes = piece.stride * static_cast<int64_t>(sizeof(bfloat16));
    int64_t k = 0;
    for (; k + kUnitTerms <= piece.length; k += kUnitTerms) {
      multiply_step<kPixels, kWeights>(pixels + k, pixel_bytes, panel, vectors);
      panel += kUnitTerms / 2 * sizeof...(kVector) * Vec::kWidth;
    }
    if (k < piece.length) {
      multiply_step<kRestPixels, kRestWeights>(pixels + k, pixel_bytes, panel, vectors);
      panel += (piece.length - k) / 2 * sizeof...(kVector) * Vec::kWidth;
    }
  }
  (write_tile<kSums + kVector>(out + kVector * vector_floats), ...);
}

static void multiply_by_unit(const Piece<bfloat16>* pieces, int64_t piece_count, int64_t row, const float* panel,
                             int vectors, const float* bias, float* out, int64_t vector_floats) {
  auto multiply = [&](auto sequence) {
    multiply_pieces(pieces, piece_count, row, panel, bias, out, vector_floats, sequence);
  };
  switch (vectors) {
    case 1: return multiply(std::make_integer_sequence<int, 1>{});
    case 2: return multiply(std::make_integer_sequence<int, 2>{});
    case 3: return multiply(std::make_integer_sequence<int, 3>{});
    default: return multiply(std::make_integer_sequence<int, 4>{});
  }
}

// Terms that the pieces have beyond whole steps. All pieces but the last have whole ones, or all are equally long.
static int rest_terms(const Piece<bfloat16>* pieces, int64_t piece_count) {
  return static_cast<int>(pieces[piece_count - 1].length % kUnitTerms);
}

// What output_rows (output_tile.h) does, by the unit.
template <class Storage>
static void output_rows_by_unit(MatrixUnit& unit, const Piece<bfloat16>* pieces, int64_t piece_count, int64_t first,
                                int64_t last, const Panels& panels, const float* weight, int64_t first_panel,
                                int64_t last_panel, Activation activation, Storage* y, const Storage* residual) {
  alignas(64) float sums[kUnitVectors * kUnitRows * Vec::kWidth];
  const UnitTiles tiles(last - first);
  unit.shape(tiles.height, rest_terms(pieces, piece_count));
  for (int64_t p = first_panel; p < last_panel; p++) {
    const int vectors = panels.width_of(p);
    const int64_t column = panels.first_vector(p) * Vec::kWidth;
    const float* panel = weight + (panels.weights_of(p) - panels.weight);
    const int lanes =
        static_cast<int>(std::min<int64_t>(Vec::kWidth, panels.columns - column - (vectors - 1) * Vec::kWidth));
    int64_t row = first;  // the first that is not stored yet
    for (int64_t t = 0; t < tiles.count; t++) {
      const int64_t origin = first + tiles.first(t), end = origin + tiles.height;
      multiply_by_unit(pieces, piece_count, origin, panel, vectors, panels.bias + column, sums,
                       kUnitRows * Vec::kWidth);
      with_activation(activation, [&]<Activation kActivation>() {
        for (int j = 0; j < vectors; j++) {
          const bool whole = j < vectors - 1 || lanes == Vec::kWidth;
          for (int64_t i = row; i < end; i++) {
            const int64_t at = i * panels.columns + column + j * Vec::kWidth;
            Vec v = activate<kActivation, Storage>(load(sums + (j * kUnitRows + i - origin) * Vec::kWidth));
            if (residual) v = add(v, whole ? load(residual + at) : load_n(residual + at, lanes));
            if (whole) {
              store(y + at, v);
            } else {
              store_n(y + at, v, lanes);
            }
          }
        }
      });
      row = end;
    }
  }
}

#else

class MatrixUnit {};

#endif
