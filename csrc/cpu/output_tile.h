// The micro-kernel of every convolution that stores a map: multiplies, activates, adds the residual and stores, out of
// the registers. Included inside an instruction set's namespace, after matrix.h.
#pragma once

template <class Storage, class Element>
struct OutputTile {
  const Piece<Element>* pieces;
  int64_t piece_count;
  int64_t row;         // the tile's first, counted from the pieces' data
  const float* panel;  // weights: all of piece 0, then all of piece 1, ...
  const float* bias;
  Storage* y;               // of the first row and the panel's first column
  const Storage* residual;  // like y, or null
  int64_t columns;          // of y: distance of two rows
  int lanes;                // of the panel's last vector that exist
  Activation activation;
};

// SiLU and the identity have kernels of their own; one more has the cheap activations.
enum class Finish { kIdentity, kSilu, kOther };
static inline Finish finish_of(Activation a) {
  return a == Activation::kIdentity ? Finish::kIdentity : a == Activation::kSilu ? Finish::kSilu : Finish::kOther;
}

// Terms that are summed one after the other in float32: two chunks. A single sum over the 1152 channels of a late
// projection had five times the rounding error of PyTorch's on an AMD core. On an Intel core, where PyTorch's products
// are MKL's, sums of 192 had 3.5 times its largest error over 320 channels, sums of 96 have 1.6 times; B0 and
// MobileNetV2 take equally long, within the 2 % that could be told apart. (16-bit products are rounded more coarsely.)
inline constexpr int64_t kSumTerms = 96;

// Adds the sums to `earlier`, or begins it with them, and starts them again from zero.
template <int kRows, int kVectors>
ALWAYS_INLINE void fold(Vec (&sum)[kRows][kVectors], float* earlier, bool add_to) {
#pragma GCC unroll 32
  for (int i = 0; i < kRows * kVectors; i++) {
    Vec& s = sum[i / kVectors][i % kVectors];
    store(earlier + i * Vec::kWidth, add_to ? add(s, load(earlier + i * Vec::kWidth)) : s);
    s = set1(0.0f);
  }
}

template <Activation kActivation, class Storage, int kRows, int kVectors>
ALWAYS_INLINE void activate_tile(Vec (&sum)[kRows][kVectors]) {
#pragma GCC unroll 32
  for (int i = 0; i < kRows * kVectors; i++) {
    Vec& s = sum[i / kVectors][i % kVectors];
    s = activate<kActivation, Storage>(s);
  }
}

// y[kRows][kVectors * W] = sums + residual, rounded once; of the last vector the first `lanes`. Arguments by value:
// as members of the tile they would be read again after each store, which might have changed them.
template <class Storage, int kRows, int kVectors>
ALWAYS_INLINE void store_tile(Vec (&sum)[kRows][kVectors], const int64_t columns, const int lanes,
                              const Storage* const residual, Storage* const y) {
  if (residual) {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; i++) {
#pragma GCC unroll 16
      for (int j = 0; j < kVectors; j++) {
        const Storage* from = residual + i * columns + j * Vec::kWidth;
        const bool whole = j < kVectors - 1 || lanes == Vec::kWidth;
        sum[i][j] = add(sum[i][j], whole ? load(from) : load_n(from, lanes));
      }
    }
  }
  if (lanes == Vec::kWidth) {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; i++) {
#pragma GCC unroll 16
      for (int j = 0; j < kVectors; j++) store(y + i * columns + j * Vec::kWidth, sum[i][j]);
    }
  } else {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; i++) {
#pragma GCC unroll 16
      for (int j = 0; j < kVectors - 1; j++) store(y + i * columns + j * Vec::kWidth, sum[i][j]);
      store_n(y + i * columns + (kVectors - 1) * Vec::kWidth, sum[i][kVectors - 1], lanes);
    }
  }
}

// y[kRows][kVectors * W] = activation(bias + rows x panel) + residual, rounded once.
template <class Storage, class Element, Finish kFinish, int kRows, int kVectors>
static void output_tile(const OutputTile<Storage, Element>& t) {
  Vec sum[kRows][kVectors];
  start_with_bias(sum, t.bias);
  const float* panel = t.panel;
  float earlier[kRows * kVectors * Vec::kWidth];  // sums of the terms before, once there are many
  bool folded = false;
  int64_t terms = 0;
  for (int64_t p = 0; p < t.piece_count; p++) {
    const Piece<Element>& piece = t.pieces[p];
    const Element* rows = piece.data + t.row * piece.stride;
    if constexpr (Product<Element>::kRoundsEachTerm) {
      for (int64_t k = 0; k < piece.length;) {
        if (terms >= kSumTerms) {
          fold(sum, earlier, folded);
          folded = true;
          terms = 0;
        }
        const int64_t length = std::min(piece.length - k, kSumTerms);
        accumulate(sum, rows + k, piece.stride, length, panel);
        k += length;
        terms += length;
      }
    } else {
      accumulate(sum, rows, piece.stride, piece.length, panel);
    }
  }
  if (folded) {
#pragma GCC unroll 32
    for (int i = 0; i < kRows * kVectors; i++) {
      Vec& s = sum[i / kVectors][i % kVectors];
      s = add(s, load(earlier + i * Vec::kWidth));
    }
  }
  if constexpr (kFinish == Finish::kSilu) activate_tile<Activation::kSilu, Storage>(sum);
  if constexpr (kFinish == Finish::kOther) {
    switch (t.activation) {
      case Activation::kIdentity:
      case Activation::kSilu: break;
      case Activation::kRelu: activate_tile<Activation::kRelu, Storage>(sum); break;
      case Activation::kRelu6: activate_tile<Activation::kRelu6, Storage>(sum); break;
      case Activation::kHardswish: activate_tile<Activation::kHardswish, Storage>(sum); break;
    }
  }
  store_tile<Storage, kRows, kVectors>(sum, t.columns, t.lanes, t.residual, t.y);
}

template <class Storage, class Element>
using OutputTileKernel = void (*)(const OutputTile<Storage, Element>&);

template <class Storage, class Element, Finish kFinish, int... kKernel>
static OutputTileKernel<Storage, Element> output_tile_among(std::integer_sequence<int, kKernel...>, int kernel) {
  static constexpr OutputTileKernel<Storage, Element> kKernels[] = {
      output_tile<Storage, Element, kFinish, rows_of_kernel(kKernel), vectors_of_kernel(kKernel)>...};
  return kKernels[kernel];
}

template <class Storage, class Element>
static OutputTileKernel<Storage, Element> output_tile_for(Activation activation, int rows, int vectors) {
  const int kernel = tile_kernel(rows, vectors);
  switch (finish_of(activation)) {
    case Finish::kIdentity: return output_tile_among<Storage, Element, Finish::kIdentity>(TileKernels{}, kernel);
    case Finish::kSilu: return output_tile_among<Storage, Element, Finish::kSilu>(TileKernels{}, kernel);
    case Finish::kOther: break;
  }
  return output_tile_among<Storage, Element, Finish::kOther>(TileKernels{}, kernel);
}

// Rows [first, last) of y, `columns` wide, over panels [first_panel, last_panel): a panel outermost, so that it stays
// in the L1 or L2 over all tiles. `y` and `residual` are those of row 0. Tiles of equal height: 49 rows are 7 x 7.
template <class Storage, class Element>
static void output_rows(MatrixUnit& unit, const Piece<Element>* pieces, int64_t piece_count, int64_t first,
                        int64_t last, const Panels& panels, const float* weight, int64_t first_panel,
                        int64_t last_panel, Activation activation, Storage* y, const Storage* residual) {
#ifdef EFFNET_FAST_HAS_AMX
  if constexpr (std::is_same_v<Element, bfloat16>) {
    return output_rows_by_unit(unit, pieces, piece_count, first, last, panels, weight, first_panel, last_panel,
                               activation, y, residual);
  }
#endif
  (void)unit;
  const int64_t rows = last - first, columns = panels.columns;
  for (int64_t p = first_panel; p < last_panel; p++) {
    const int vectors = panels.width_of(p);
    const int64_t tiles = ceil_div(rows, tile_rows(vectors));
    const int64_t column = panels.first_vector(p) * Vec::kWidth, left = columns - column - (vectors - 1) * Vec::kWidth;
    OutputTile<Storage, Element> tile{
        pieces,  piece_count, first,   weight + (panels.weights_of(p) - panels.weight),        panels.bias + column,
        nullptr, nullptr,     columns, static_cast<int>(std::min<int64_t>(Vec::kWidth, left)), activation};
    for (int64_t t = 0; t < tiles; t++) {
      const int64_t row = first + t * rows / tiles, height = first + (t + 1) * rows / tiles - row;
      const int64_t at = row * columns + column;
      tile.row = row;
      tile.y = y + at;
      tile.residual = residual ? residual + at : nullptr;
      output_tile_for<Storage, Element>(activation, static_cast<int>(height), vectors)(tile);
    }
  }
}

// A panel's weights with every row k of them multiplied by gates[k]; `depth` rows.
template <class Element>
static void scale_panel(const float* panel, int vectors, int64_t depth, const float* gates, float* scaled) {
  for (int64_t k = 0; k < depth; k += Product<Element>::kStep) {
    for (int j = 0; j < vectors; j++, panel += Vec::kWidth, scaled += Vec::kWidth) {
      store(scaled, Product<Element>::scale(panel, gates + k));
    }
  }
}
