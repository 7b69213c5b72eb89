// The matrix micro-kernel that every convolution but the depthwise one is built on, and the last step of a tile.
// Included inside an instruction set's namespace.
#pragma once

// Rows and vectors of a register tile: 8 x 3 leaves 24 accumulators of AVX-512's 32 registers, 6 x 2 leaves 12 of 16.
// Any tile with at least 20 (10) accumulators and two vectors reached 93-97 % of the FMA peak on Zen 4.
inline constexpr int kTileRows = Vec::kWidth == 16 ? 8 : 6;
inline constexpr int kPanelVectors = Vec::kWidth == 16 ? 3 : 2;
// One or two vectors get more rows: eight sums would wait for each other, each tile has its price around the loop, and
// the weights are walked fewer times. (A projection of 960 to 160 channels at 7 x 7 in float32: 64 us instead of 97.)
static constexpr int tile_rows(int vectors) {
  return vectors == 1 ? 2 * kTileRows : vectors == 2 && kPanelVectors == 3 ? 12 : kTileRows;
}
inline constexpr int kTileFloats = kTileRows * kPanelVectors * Vec::kWidth;

#ifdef EFFNET_FAST_HAS_AMX
inline constexpr int kUnitVectors = 4;  // of a panel, the most that a matrix unit has tiles for (matrix_unit.h)
#endif

// Packed weights that a task walks again for every row tile: kept within half of the L2 of current server cores. From
// there the micro-kernel reads them as fast as from the L1 (123 GMAC/s of a Zen 5 core's 125 over 885 KiB).
inline constexpr int64_t kPanelGroupBytes = 512 * 1024;

#ifdef EFFNET_FAST_HAS_BF16_DOT
inline constexpr bool kHasBf16Pairs = true;
#else
inline constexpr bool kHasBf16Pairs = false;
#endif

// Whether float32 weights that bfloat16 holds are stored as such. At batch 1 B0's classifier takes 21 instead of 37 us
// of two Zen 5 cores then, and large products take as long as before; with AVX2's 16 registers 14 to 20 % longer.
#ifdef EFFNET_FAST_HAS_PAIRS
inline constexpr bool kHalvesWeights = true;
#else
inline constexpr bool kHalvesWeights = false;
#endif

// float32 rows for weights that are stored as pairs of bfloat16 and widened as they are read: half the bytes to fetch,
// the same products in the same order.
struct FloatByBf16 {
  float value;
};
static_assert(sizeof(FloatByBf16) == sizeof(float));

// How a row operand of type Element is multiplied: one float32, or a pair at a time.
template <class Element>
struct Product;

template <>
struct Product<float> {
  static constexpr int kStep = 1;
  static constexpr bool kRoundsEachTerm = true;  // to float32, so that long sums are taken in parts
  using Value = float;                           // of a row, in memory
  using Row = Vec;
  using Column = Vec;
  static inline __attribute__((always_inline)) Vec row(const float* p) { return broadcast(p); }
  static inline __attribute__((always_inline)) Vec column(const float* p) { return load(p); }
  static inline __attribute__((always_inline)) Vec accumulate(Vec a, Vec b, Vec c) { return fma(a, b, c); }
  // A vector of columns' weights of one step, times the gates of its channels.
  static inline __attribute__((always_inline)) Vec scale(const float* p, const float* gates) {
    return mul(load(p), broadcast(gates));
  }
};

#ifdef EFFNET_FAST_HAS_PAIRS
template <>
struct Product<FloatByBf16> {
  static constexpr int kStep = 2;
  static constexpr bool kRoundsEachTerm = true;
  using Value = float;
  struct Row {
    Vec first, second;
  };
  using Column = Row;
  static inline __attribute__((always_inline)) Row row(const FloatByBf16* p) {
    return {broadcast(&p[0].value), broadcast(&p[1].value)};
  }
  static inline __attribute__((always_inline)) Column column(const float* p) {
    return {first_of_pairs(p), second_of_pairs(p)};
  }
  static inline __attribute__((always_inline)) Vec accumulate(Row a, Column b, Vec c) {
    return fma(a.second, b.second, fma(a.first, b.first, c));
  }
};
#endif

#ifdef EFFNET_FAST_HAS_BF16_DOT
template <>
struct Product<bfloat16> {
  static constexpr int kStep = 2;
  static constexpr bool kRoundsEachTerm = false;
  using Value = bfloat16;
  using Row = Vec;
  using Column = Vec;
  static inline __attribute__((always_inline)) Vec row(const bfloat16* p) { return broadcast_pair(p); }
  static inline __attribute__((always_inline)) Vec column(const float* p) {
    return load(p);
  }  // sixteen pairs, as 32-bit words
  static inline __attribute__((always_inline)) Vec accumulate(Vec a, Vec b, Vec c) { return dot_pairs(a, b, c); }
  static inline __attribute__((always_inline)) Vec scale(const float* p, const float* gates) {
    return scale_pairs(p, broadcast(gates), broadcast(gates + 1));
  }
};
#endif

// The rows of the left operand. A row is `segments` pieces of `length` consecutive elements (one piece for a 1x1
// convolution, one per kernel row for a larger one); row i of the tile lies i * row_stride elements further on.
template <class Element>
struct Rows {
  const Element* const* pieces;
  int64_t segments, length, row_stride;
};

// A part of the left operand: `length` consecutive elements of every row, rows `stride` elements apart. A 1x1
// convolution has one piece, a larger one a piece for each kernel row, a block's projection one for each chunk.
template <class Element>
struct Piece {
  const Element* data;
  int64_t length, stride;
};

// Weights are fetched 8 KiB ahead, across the page bound at which a core's own prefetching stops: at batch 1, where
// they come from the L3 or from memory, B0 in float32 is 3.6 % faster for it; 4 or 16 KiB are no better.
inline constexpr int kFetchAhead = 2048;

// sum += rows x panel over `length` elements of every row; `panel` is left behind the weights that were used. The sum
// over k runs in the order of k whatever the tile, so that results do not depend on how the work was split.
template <class Element, int kRows, int kVectors>
ALWAYS_INLINE void accumulate(Vec (&sum)[kRows][kVectors], const Element* a, int64_t stride, int64_t length,
                              const float*& panel) {
  using P = Product<Element>;
  // Every third row has an address of its own, the two behind it are one and two strides away: addresses of more than
  // eight rows do not fit in the general registers.
  const Element* base[(kRows + 2) / 3];
#pragma GCC unroll 16
  for (int i = 0; i < (kRows + 2) / 3; i++) base[i] = a + 3 * i * stride;
  for (int64_t k = 0; k < length; k += P::kStep, panel += kVectors * Vec::kWidth) {
    typename P::Column b[kVectors];
#pragma GCC unroll 16
    for (int j = 0; j < kVectors; j++) {
      b[j] = P::column(panel + j * Vec::kWidth);
      __builtin_prefetch(panel + kFetchAhead + j * Vec::kWidth);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kRows; i++) {
      const typename P::Row ai = P::row(kRows > 8 ? base[i / 3] + i % 3 * stride + k : a + i * stride + k);
#pragma GCC unroll 16
      for (int j = 0; j < kVectors; j++) sum[i][j] = P::accumulate(ai, b[j], sum[i][j]);
    }
  }
}

template <int kRows, int kVectors>
ALWAYS_INLINE void start_with_bias(Vec (&sum)[kRows][kVectors], const float* bias) {
#pragma GCC unroll 16
  for (int j = 0; j < kVectors; j++) {
    const Vec b = load(bias + j * Vec::kWidth);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; i++) sum[i][j] = b;
  }
}

// out[kVectors][kRows][W] = activation(bias + rows x panel), its vectors vector_floats apart.
template <class Element, int kRows, int kVectors, Activation kActivation>
static void multiply_tile(const Rows<Element>& rows, const float* panel, const float* bias, float* out,
                          int64_t vector_floats) {
  Vec sum[kRows][kVectors];
  start_with_bias(sum, bias);
  for (int64_t s = 0; s < rows.segments; s++) accumulate(sum, rows.pieces[s], rows.row_stride, rows.length, panel);
#pragma GCC unroll 16
  for (int i = 0; i < kRows; i++) {
#pragma GCC unroll 16
    for (int j = 0; j < kVectors; j++)
      store(out + j * vector_floats + i * Vec::kWidth, activate<kActivation, Element>(sum[i][j]));
  }
}

template <class Element>
using MultiplyTile = void (*)(const Rows<Element>&, const float* panel, const float* bias, float* out,
                              int64_t vector_floats);

// Every tile has a kernel of its own; which one is looked up, for short sums in as little time as there is.
static constexpr int first_tile_kernel(int vectors) {
  int first = 0;
  for (int v = 1; v < vectors; v++) first += tile_rows(v);
  return first;
}
inline constexpr int kTileKernels = first_tile_kernel(kPanelVectors + 1);
static constexpr int tile_kernel(int rows, int vectors) { return first_tile_kernel(vectors) + rows - 1; }
static constexpr int vectors_of_kernel(int kernel) {
  int vectors = 1;
  while (kernel >= first_tile_kernel(vectors + 1)) vectors++;
  return vectors;
}
static constexpr int rows_of_kernel(int kernel) { return kernel - first_tile_kernel(vectors_of_kernel(kernel)) + 1; }
using TileKernels = std::make_integer_sequence<int, kTileKernels>;

template <class Element, Activation kActivation, int... kKernel>
static MultiplyTile<Element> multiply_among(std::integer_sequence<int, kKernel...>, int kernel) {
  static constexpr MultiplyTile<Element> kKernels[] = {
      multiply_tile<Element, rows_of_kernel(kKernel), vectors_of_kernel(kKernel), kActivation>...};
  return kKernels[kernel];
}

// The micro-kernel for a tile; with kActivation other than identity, activated before it leaves the registers.
template <class Element, Activation kActivation = Activation::kIdentity>
static MultiplyTile<Element> multiply_for(int rows, int vectors) {
  return multiply_among<Element, kActivation>(TileKernels{}, tile_kernel(rows, vectors));
}

// How a matrix's columns are shared out. A matrix unit (matrix_unit.h) has tiles for the sums of four vectors, and
// wants the products that it makes, a block's filtered channels, in pieces of whole 32.
static PanelSplit split_columns(int64_t columns, [[maybe_unused]] DType dtype, [[maybe_unused]] bool pairs) {
  const int64_t vectors = ceil_div(columns, Vec::kWidth);
#ifdef EFFNET_FAST_HAS_AMX
  if (dtype == DType::kBFloat16) return PanelSplit(vectors, pairs ? kUnitVectors : 2, 2);
#endif
  return PanelSplit(vectors, kPanelVectors, 1);
}
static PanelSplit split_columns(const PackedHeader& packed) {
  return split_columns(packed.out_channels, static_cast<DType>(packed.dtype), packed.bf16_pairs);
}

// The right operand as it was packed.
struct Panels : PanelSplit {
  const float* weight;
  const float* bias;
  int64_t depth_words;  // 32-bit words of one column: K, or K / 2 for pairs of bfloat16
  int64_t columns;

  explicit Panels(const PackedHeader& packed)
      : PanelSplit(split_columns(packed)),
        weight(section<float>(packed, packed.weight)),
        bias(section<float>(packed, packed.bias)),
        columns(packed.out_channels) {
    const int64_t depth = stored_channels(packed) * packed.kernel * packed.kernel;
    depth_words = packed.bf16_pairs || packed.bf16_values ? depth / 2 : depth;
  }
  const float* weights_of(int64_t panel) const { return weight + first_vector(panel) * depth_words * Vec::kWidth; }
  int64_t bytes() const { return vectors * depth_words * Vec::kWidth * 4; }
  // Enough groups that one fits in the cache, and that every thread finds work when there are few row tiles.
  int64_t groups(int64_t tiles, int64_t threads) const {
    int64_t wanted = ceil_div(bytes(), kPanelGroupBytes);
    if (threads > 1 && tiles < 4 * threads) {
      wanted = std::max(wanted, ceil_div(4 * threads, std::max<int64_t>(tiles, 1)));
    }
    wanted = std::max<int64_t>(std::min(wanted, count), 1);
    while (count % wanted) wanted++;  // equal groups: a thread that gets one of three panels waits for the other two
    return wanted;
  }
};

// A row of x in the form that is multiplied: converted, and scaled by the squeeze-excite gate where there is one.
template <class Storage, class Element>
static void prepare_row(const Storage* x, const float* gate, int64_t channels, Element* row) {
  const int64_t whole = channels - channels % Vec::kWidth;
  for (int64_t c = 0; c < whole; c += Vec::kWidth) {
    const Vec v = load(x + c);
    store(row + c, gate ? mul(v, load(gate + c)) : v);
  }
  if (const int rest = static_cast<int>(channels - whole)) {
    const Vec v = load_n(x + whole, rest);
    store_n(row + whole, gate ? mul(v, load_n(gate + whole, rest)) : v, rest);
  }
}

// `count` rows of x in that form: where they lie, or converted into `prepared`.
template <class Storage, class Element>
static const Element* as_operand(const Storage* x, int64_t count, int64_t depth, Element* prepared) {
  if constexpr (std::is_same_v<Storage, Element>) {
    return x;
  } else {
    for (int64_t i = 0; i < count; i++) prepare_row(x + i * depth, nullptr, depth, prepared + i * depth);
    return prepared;
  }
}
