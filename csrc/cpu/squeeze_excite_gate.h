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
  for (int64_t s = 0; s < squeeze; s++) {
    Vec even = set1(0.0f), odd = set1(0.0f);
    int64_t c = 0;
    for (; c + 2 * Vec::kWidth <= padded; c += 2 * Vec::kWidth) {
      even = fma(load(w1 + s * padded + c), load(mean + c), even);
      odd = fma(load(w1 + s * padded + c + Vec::kWidth), load(mean + c + Vec::kWidth), odd);
    }
    if (c < padded) even = fma(load(w1 + s * padded + c), load(mean + c), even);
    squeezed[s] = reduce_add(add(even, odd)) + b1[s];
  }
  with_activation(se.activation, [&]<Activation kActivation>() {
    for (int64_t s = 0; s < squeeze; s += Vec::kWidth) {
      const int lanes = static_cast<int>(std::min<int64_t>(Vec::kWidth, squeeze - s));
      store_n(squeezed + s, activate<kActivation, float>(load_n(squeezed + s, lanes)), lanes);
    }
  });
  for (int64_t c = 0; c < channels; c += Vec::kWidth) {
    Vec even = load(b2 + c), odd = set1(0.0f);
    int64_t s = 0;
    for (; s + 1 < squeeze; s += 2) {
      even = fma(broadcast(squeezed + s), load(w2 + s * padded + c), even);
      odd = fma(broadcast(squeezed + s + 1), load(w2 + (s + 1) * padded + c), odd);
    }
    if (s < squeeze) even = fma(broadcast(squeezed + s), load(w2 + s * padded + c), even);
    const int lanes = static_cast<int>(std::min<int64_t>(Vec::kWidth, room - c));
    store_n(gates + c, open_gate(se.gate, add(even, odd)), lanes);
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
