// What one core can do at most, for the benchmarks: the same operation over and over in registers. Included inside an
// instruction set's namespace.
#pragma once

// Enough independent accumulators to hide the latency of a multiply-add at two a cycle, few enough for the registers.
inline constexpr int kPeakChains = Vec::kWidth == 16 ? 24 : 12;

template <class Step>
ALWAYS_INLINE float repeat(int64_t iterations, const Step& step) {
  Vec chain[kPeakChains];
#pragma GCC unroll 32
  for (int i = 0; i < kPeakChains; i++) chain[i] = set1(0.01f * static_cast<float>(i));
  for (int64_t n = 0; n < iterations; n++) {
#pragma GCC unroll 32
    for (int i = 0; i < kPeakChains; i++) chain[i] = step(chain[i]);
  }
  Vec sum = chain[0];
#pragma GCC unroll 32
  for (int i = 1; i < kPeakChains; i++) sum = add(sum, chain[i]);
  return reduce_add(sum);
}

#ifdef EFFNET_FAST_HAS_AMX
static int64_t peak_of_unit(int64_t iterations) {
  MatrixUnit unit;
  unit.shape(kUnitRows, 0);
  for (int64_t n = 0; n < iterations; n++) {
    multiply_tiles<kSums, kPixels, kWeights>();
    multiply_tiles<kSums + 1, kPixels, kWeights>();
    multiply_tiles<kSums + 2, kPixels, kWeights>();
    multiply_tiles<kSums + 3, kPixels, kWeights>();
  }
  return iterations * kUnitVectors * kUnitRows * kUnitTerms * Vec::kWidth;
}
#endif

// Multiply-adds or evaluations done; 0 where the instruction set has no such instruction.
static int64_t peak(Peak kind, int64_t iterations) {
  const Vec a = set1(0.5f), b = set1(0.25f);
  float result = 0.0f;
  int64_t each = Vec::kWidth;
  if (kind == Peak::kFma) {
    result = repeat(iterations, [&](Vec x) __attribute__((always_inline)) { return fma(x, a, b); });
  } else if (kind == Peak::kSilu) {
    // Of x / 2 + 1/4, which stays near one: SiLU of itself would end in denormal numbers.
    result = repeat(iterations, [&](Vec x) __attribute__((always_inline)) {
      return activate<Activation::kSilu, float>(fma(x, a, b));
    });
  } else {
#ifdef EFFNET_FAST_HAS_AMX
    return peak_of_unit(iterations);
#elif defined(EFFNET_FAST_HAS_BF16_DOT)
    each *= 2;
    result = repeat(iterations, [&](Vec x) __attribute__((always_inline)) { return dot_pairs(a, b, x); });
#else
    return 0;
#endif
  }
  volatile float used = result;  // or the compiler would drop it all
  (void)used;
  return iterations * kPeakChains * each;
}
