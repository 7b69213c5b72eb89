// Activations and gates on one vector. Included inside an instruction set's namespace.

// 2^f on [kFractionFrom, kFractionFrom + 1] by minimax polynomials, as short as the storage type allows.
//
// float32 and float16: degree 6, 1.9e-9, which is lost in float32's rounding. Degree 5, 7.5e-8, would do for one value,
// but its error has one sign over whole ranges, which adds up over fifty layers: it doubled the error of B0's float32
// logits. AVX-512 has a table instead: see vec_avx512.h.
// bfloat16: degree 3, 7.5e-5, a twenty-sixth of half a unit of the result.
inline constexpr float kExp2AroundZero[] = {1.0f,
                                            6.9314720574e-01f,
                                            2.4022646891e-01f,
                                            5.5503287770e-02f,
                                            9.6184889571e-03f,
                                            1.3399931220e-03f,
                                            1.5345812009e-04f};
inline constexpr float kExp2FromZeroBFloat16[] = {9.9992521856e-01f, 6.9583354049e-01f, 2.2606715543e-01f,
                                                  7.8024522640e-02f};
inline constexpr float kExp2AroundZeroBFloat16[] = {9.9992807354e-01f, 6.9326098546e-01f, 2.4261112219e-01f,
                                                    5.5171669058e-02f};

template <int kTerms>
ALWAYS_INLINE Vec polynomial(Vec f, const float (&coefficients)[kTerms]) {
  Vec p = set1(coefficients[kTerms - 1]);
#pragma GCC unroll 6
  for (int i = kTerms - 2; i >= 0; i--) p = fma(p, f, set1(coefficients[i]));
  return p;
}

// 2^x, as exact as Storage needs it.
template <class Storage>
ALWAYS_INLINE Vec exp2_as(Vec x) {
  if constexpr (std::is_same_v<Storage, bfloat16>) {
    return exp2_by(x, [](Vec f) __attribute__((always_inline)) {
      return polynomial(f, kFractionFrom == 0.0f ? kExp2FromZeroBFloat16 : kExp2AroundZeroBFloat16);
    });
  }
#ifdef EFFNET_FAST_HAS_EXP2_TABLE
  return exp2_by_table(x);
#else
  return exp2_by(x, [](Vec f) __attribute__((always_inline)) { return polynomial(f, kExp2AroundZero); });
#endif
}

// 1 + e^-x. Infinity for large negative x, so that x / (1 + e^-x) is -0 there, and NaN for x = -inf as in PyTorch.
template <class Storage>
ALWAYS_INLINE Vec one_plus_exp_neg(Vec x) {
  return add(exp2_as<Storage>(mul(x, set1(-1.4426950408889634f))), set1(1.0f));
}

// x / y, as exact as Storage needs it.
template <class Storage>
ALWAYS_INLINE Vec quotient(Vec x, Vec y) {
#ifdef EFFNET_FAST_HAS_QUICK_RECIPROCAL
  if constexpr (std::is_same_v<Storage, bfloat16>) return mul(x, reciprocal_estimate(y));
#endif
  return div(x, y);
}

ALWAYS_INLINE Vec relu6(Vec x) { return at_most(set1(6.0f), at_least(set1(0.0f), x)); }

// Storage: the type that the result is rounded to.
template <Activation kActivation, class Storage>
ALWAYS_INLINE Vec activate(Vec x) {
  if constexpr (kActivation == Activation::kSilu) return quotient<Storage>(x, one_plus_exp_neg<Storage>(x));
  if constexpr (kActivation == Activation::kRelu) return at_least(set1(0.0f), x);
  if constexpr (kActivation == Activation::kRelu6) return relu6(x);
  if constexpr (kActivation == Activation::kHardswish) {
    return mul(x, mul(relu6(add(x, set1(3.0f))), set1(1.0f / 6.0f)));
  }
  return x;
}

// Calls `body.template operator()<A>()` with the activation as a compile-time constant.
template <class Body>
ALWAYS_INLINE void with_activation(Activation activation, Body&& body) {
  switch (activation) {
    case Activation::kIdentity: return body.template operator()<Activation::kIdentity>();
    case Activation::kRelu: return body.template operator()<Activation::kRelu>();
    case Activation::kRelu6: return body.template operator()<Activation::kRelu6>();
    case Activation::kSilu: return body.template operator()<Activation::kSilu>();
    case Activation::kHardswish: return body.template operator()<Activation::kHardswish>();
  }
}

ALWAYS_INLINE Vec open_gate(Gate gate, Vec x) {
  if (gate == Gate::kSigmoid) return div(set1(1.0f), one_plus_exp_neg<float>(x));
  return mul(relu6(add(x, set1(3.0f))), set1(1.0f / 6.0f));
}
