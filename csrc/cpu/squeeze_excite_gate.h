// squeeze_excite_gate: gate(w2 @ activation(w1 @ mean + b1) + b2) from the partial sums of a depthwise convolution.
// Included inside an instruction set's namespace.
#pragma once

struct SqueezeExcite {
  const PackedHeader& packed;
  int64_t tiles, tile_floats;  // partial sums of an image, and how far they lie apart
  int64_t count;               // pixels that they are sums of
  Activation activation;
  Gate gate;
};

static int64_t squeeze_excite_padded(const PackedHeader& p) {
  return ceil_div(p.out_channels, Vec::kWidth) * Vec::kWidth;
}

// Floats of scratch that gates_of_image needs.
static int64_t squeeze_excite_scratch(const PackedHeader& p) {
  return squeeze_excite_padded(p) + p.squeeze + Vec::kWidth;
}

// Rows of w1, or vectors of w2, that are multiplied together: eight sums hide the latency of the multiply-add, and w2
// is read in runs of 256 bytes instead of one cache line of each row. B0 in bfloat16 at batch 1 is 1 % faster for it.
inline constexpr int kGateBlock = 4;

// out[kRows] = rows of w1 times the mean, over `padded` channels.
template <int kRows>
static void squeeze_rows(const float* w1, const float* mean, int64_t padded, float* out) {
  Vec even[kRows], odd[kRows];
#pragma GCC unroll 4
  for (int i = 0; i < kRows; i++) even[i] = odd[i] = set1(0.0f);
  int64_t c = 0;
  for (; c + 2 * Vec::kWidth <= padded; c += 2 * Vec::kWidth) {
#pragma GCC unroll 4
    for (int i = 0; i < kRows; i++) {
      const float* row = w1 + i * padded + c;
      even[i] = fma(load(row), load(mean + c), even[i]);
      odd[i] = fma(load(row + Vec::kWidth), load(mean + c + Vec::kWidth), odd[i]);
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < kRows; i++) {
    if (c < padded) even[i] = fma(load(w1 + i * padded + c), load(mean + c), even[i]);
    out[i] = reduce_add(add(even[i], odd[i]));
  }
}

// out[kVectors] = bias + squeezed values times rows of w2, `padded` floats apart.
template <int kVectors>
ALWAYS_INLINE void excite_vectors(const float* w2, const float* bias, const float* squeezed, int64_t squeeze,
                                  int64_t padded, Vec (&out)[kVectors]) {
  Vec odd[kVectors];
#pragma GCC unroll 4
  for (int j = 0; j < kVectors; j++) out[j] = load(bias + j * Vec::kWidth), odd[j] = set1(0.0f);
  int64_t s = 0;
  for (; s + 1 < squeeze; s += 2, w2 += 2 * padded) {
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; j++) {
      out[j] = fma(broadcast(squeezed + s), load(w2 + j * Vec::kWidth), out[j]);
      odd[j] = fma(broadcast(squeezed + s + 1), load(w2 + padded + j * Vec::kWidth), odd[j]);
    }
  }
#pragma GCC unroll 4
  for (int j = 0; j < kVectors; j++) {
    if (s < squeeze) out[j] = fma(broadcast(squeezed + s), load(w2 + j * Vec::kWidth), out[j]);
    out[j] = add(out[j], odd[j]);
  }
}

// The gates of one image from its sums [tiles][channels]; writes the first `room` of them: all that exist, or as many
// as their vectors have lanes.
static void gates_of_image(const SqueezeExcite& se, const float* sums, float* gates, int64_t room, float* scratch) {
  const PackedHeader& p = se.packed;
  const float *w1 = section<float>(p, p.w1), *b1 = section<float>(p, p.b1);
  const float *w2 = section<float>(p, p.w2), *b2 = section<float>(p, p.b2);
  const int64_t channels = p.out_channels, squeeze = p.squeeze, padded = squeeze_excite_padded(p);
  const Vec scale = set1(1.0f / static_cast<float>(se.count));
  float *mean = scratch, *squeezed = scratch + padded;
  for (int64_t c = 0; c < channels; c += Vec::kWidth) {
    const int lanes = static_cast<int>(std::min<int64_t>(Vec::kWidth, channels - c));
    Vec sum = set1(0.0f);
    for (int64_t t = 0; t < se.tiles; t++) sum = add(sum, load_n(sums + t * se.tile_floats + c, lanes));
    store(mean + c, mul(sum, scale));
  }
  int64_t s = 0;
  for (; s + kGateBlock <= squeeze; s += kGateBlock) {
    squeeze_rows<kGateBlock>(w1 + s * padded, mean, padded, squeezed + s);
  }
  for (; s < squeeze; s++) squeeze_rows<1>(w1 + s * padded, mean, padded, squeezed + s);
  for (s = 0; s < squeeze; s++) squeezed[s] += b1[s];
  with_activation(se.activation, [&]<Activation kActivation>() {
    for (int64_t s = 0; s < squeeze; s += Vec::kWidth) {
      const int lanes = static_cast<int>(std::min<int64_t>(Vec::kWidth, squeeze - s));
      store_n(squeezed + s, activate<kActivation, float>(load_n(squeezed + s, lanes)), lanes);
    }
  });
  int64_t c = 0;
  const auto open = [&](Vec sum) {
    const int lanes = static_cast<int>(std::min<int64_t>(Vec::kWidth, room - c));
    store_n(gates + c, open_gate(se.gate, sum), lanes);
    c += Vec::kWidth;
  };
  while (c + kGateBlock * Vec::kWidth <= padded) {
    Vec sums_of[kGateBlock];
    excite_vectors(w2 + c, b2 + c, squeezed, squeeze, padded, sums_of);
    for (const Vec& sum : sums_of) open(sum);
  }
  while (c < padded) {
    Vec sum_of[1];
    excite_vectors(w2 + c, b2 + c, squeezed, squeeze, padded, sum_of);
    open(sum_of[0]);
  }
}

static void squeeze_excite_gate(const SqueezeExciteArgs& a, const Parallel& parallel) {
  const int64_t channels = a.packed->out_channels;
  const SqueezeExcite se{*a.packed, a.tiles, channels, a.count, a.activation, a.gate};
  parallel(a.images, [&](int64_t begin, int64_t end) {
    float* scratch = static_cast<float*>(thread_scratch(sizeof(float) * squeeze_excite_scratch(*a.packed)));
    for (int64_t n = begin; n < end; n++) {
      gates_of_image(se, a.sums + n * a.tiles * channels, a.gates + n * channels, channels, scratch);
    }
  });
}
