// squeeze_excite_gate: gate(w2 @ activation(w1 @ mean + b1) + b2) from the partial sums of a depthwise convolution.
// Included inside an instruction set's namespace.
#pragma once

static void squeeze_excite_gate(const SqueezeExciteArgs& a, const Parallel& parallel) {
  const PackedHeader& p = *a.packed;
  const float *w1 = section<float>(p, p.w1), *b1 = section<float>(p, p.b1);
  const float *w2 = section<float>(p, p.w2), *b2 = section<float>(p, p.b2);
  const int64_t channels = p.out_channels, squeeze = p.squeeze;
  const int64_t padded = ceil_div(channels, Vec::kWidth) * Vec::kWidth;
  const Vec scale = set1(1.0f / static_cast<float>(a.count));

  parallel(a.images, [&](int64_t begin, int64_t end) {
    float* mean = static_cast<float*>(thread_scratch(sizeof(float) * (padded + squeeze + Vec::kWidth)));
    float* squeezed = mean + padded;
    for (int64_t n = begin; n < end; n++) {
      for (int64_t c = 0; c < channels; c += Vec::kWidth) {
        const int lanes = static_cast<int>(std::min<int64_t>(Vec::kWidth, channels - c));
        Vec sum = set1(0.0f);
        for (int64_t t = 0; t < a.tiles; t++) sum = add(sum, load_n(a.sums + (n * a.tiles + t) * channels + c, lanes));
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
      with_activation(a.activation, [&]<Activation kActivation>() {
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
        const int lanes = static_cast<int>(std::min<int64_t>(Vec::kWidth, channels - c));
        store_n(a.gates + n * channels + c, open_gate(a.gate, add(even, odd)), lanes);
      }
    }
  });
}
