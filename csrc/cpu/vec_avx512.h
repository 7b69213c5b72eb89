// Sixteen float32 lanes: AVX-512 F, BW, DQ and VL; with EFFNET_FAST_HAS_BF16_DOT also AVX512_BF16.
// Same interface as vec_portable.h.

struct Vec {
  static constexpr int kWidth = 16;
  __m512 v;
};

ALWAYS_INLINE __mmask16 first_lanes(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
ALWAYS_INLINE __m512 widen_bf16(__m256i bits) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
ALWAYS_INLINE __m256i narrow_bf16(__m512 value) {
#ifdef EFFNET_FAST_HAS_BF16_DOT
  return (__m256i)_mm512_cvtneps_pbh(value);
#else
  const __m512i bits = _mm512_castps_si512(value);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x00400000));
  const __mmask16 nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_blend_epi32(nan, rounded, quiet), 16));
#endif
}

ALWAYS_INLINE Vec set1(float value) { return {_mm512_set1_ps(value)}; }
ALWAYS_INLINE Vec broadcast(const float* p) { return {_mm512_set1_ps(*p)}; }

// Keeps x in a register: GCC reads what was loaded anew for each use, and a core's two loads a cycle are soon too few.
ALWAYS_INLINE void keep_loaded(Vec& x) { asm("" : "+v"(x.v)); }

ALWAYS_INLINE Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
ALWAYS_INLINE Vec load(const float16* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p))}; }
ALWAYS_INLINE Vec load(const bfloat16* p) { return {widen_bf16(_mm256_loadu_si256((const __m256i*)p))}; }
// The first and the second of sixteen pairs of bfloat16.
#define EFFNET_FAST_HAS_PAIRS
ALWAYS_INLINE Vec first_of_pairs(const float* p) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16))};
}
ALWAYS_INLINE Vec second_of_pairs(const float* p) {
  const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  return {_mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(p), high))};
}
ALWAYS_INLINE Vec load_n(const float* p, int n) { return {_mm512_maskz_loadu_ps(first_lanes(n), p)}; }
ALWAYS_INLINE Vec load_n(const float16* p, int n) {
  return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(n), p))};
}
ALWAYS_INLINE Vec load_n(const bfloat16* p, int n) { return {widen_bf16(_mm256_maskz_loadu_epi16(first_lanes(n), p))}; }

ALWAYS_INLINE void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
ALWAYS_INLINE void store(float16* p, Vec a) {
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
ALWAYS_INLINE void store(bfloat16* p, Vec a) { _mm256_storeu_si256((__m256i*)p, narrow_bf16(a.v)); }
ALWAYS_INLINE void store_n(float* p, Vec a, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), a.v); }
ALWAYS_INLINE void store_n(float16* p, Vec a, int n) {
  _mm256_mask_storeu_epi16(p, first_lanes(n), _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
ALWAYS_INLINE void store_n(bfloat16* p, Vec a, int n) { _mm256_mask_storeu_epi16(p, first_lanes(n), narrow_bf16(a.v)); }

ALWAYS_INLINE Vec add(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
ALWAYS_INLINE Vec mul(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
ALWAYS_INLINE Vec div(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
ALWAYS_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }

#ifdef EFFNET_FAST_HAS_AMX
// 1 / a with an error of 6e-5, 0 for infinity. The cores that have AMX are Intel's, which divide slowly: SiLU in
// bfloat16 at 6.0e9 instead of 3.9e9 a second.
#define EFFNET_FAST_HAS_QUICK_RECIPROCAL
ALWAYS_INLINE Vec reciprocal_estimate(Vec a) { return {_mm512_rcp14_ps(a.v)}; }
#endif

// The instruction returns its second operand when either is NaN, so x comes second.
ALWAYS_INLINE Vec at_least(Vec limit, Vec x) { return {_mm512_max_ps(limit.v, x.v)}; }
ALWAYS_INLINE Vec at_most(Vec limit, Vec x) { return {_mm512_min_ps(limit.v, x.v)}; }

// 2^x = 2^(x - floor(x)) * 2^floor(x). vscalefps takes the floor itself and needs no clamp: it saturates to 0 and
// infinity, and vreduceps is 0 for infinities.
inline constexpr float kFractionFrom = 0.0f;
template <class Polynomial>
ALWAYS_INLINE Vec exp2_by(Vec x, Polynomial mantissa) {
  const Vec fraction = {_mm512_reduce_ps(x.v, 9)};  // 9: x - floor(x), no exceptions
  return {_mm512_scalef_ps(mantissa(fraction).v, x.v)};
}

// 2^x to float32's own rounding (5e-8): the 32nds of x from a table, what is left of it, at most a 64th, by a
// polynomial of degree 2. Its error changes sign 64 times between two integers. 12.2e9 SiLU a second of a Zen 5 core
// against 9.9e9 with a polynomial of degree 6.
#define EFFNET_FAST_HAS_EXP2_TABLE
alignas(64) inline constexpr float kPowersOfTwo[32] = {
    1.0f,        1.0218972f,  1.04427373f, 1.06714046f, 1.09050775f, 1.1143868f,  1.13878858f, 1.1637249f,
    1.18920708f, 1.21524739f, 1.24185777f, 1.26905096f, 1.29683959f, 1.32523668f, 1.35425556f, 1.38390994f,
    1.41421354f, 1.44518077f, 1.47682619f, 1.50916445f, 1.54221082f, 1.5759809f,  1.61049032f, 1.64575553f,
    1.68179286f, 1.71861935f, 1.75625217f, 1.79470909f, 1.8340081f,  1.87416768f, 1.91520655f, 1.95714414f,
};
ALWAYS_INLINE Vec exp2_by_table(Vec x) {
  const __m512 magic = _mm512_set1_ps(393216.0f);  // 1.5 * 2^18: adding it leaves the nearest 32nd in the low bits
  const __m512 shifted = _mm512_add_ps(x.v, magic);
  const __m512 rounded = _mm512_sub_ps(shifted, magic);
  // The smaller of |rest| and 1, with its sign, 1 for NaN. Infinities make NaN here, and the product that makes x,
  // fused into the subtraction, leaves its own rounding error: 1e22 for an x of 1e30. The power, 0 or infinity, is to
  // decide.
  const __m512 rest = _mm512_range_ps(_mm512_sub_ps(x.v, rounded), _mm512_set1_ps(1.0f), 2);
  const __m512 power = _mm512_permutex2var_ps(_mm512_load_ps(kPowersOfTwo), _mm512_castps_si512(shifted),
                                              _mm512_load_ps(kPowersOfTwo + 16));
  const __m512 linear = _mm512_fmadd_ps(_mm512_set1_ps(2.402265070e-01f), rest, _mm512_set1_ps(6.931471806e-01f));
  return {_mm512_scalef_ps(_mm512_fmadd_ps(power, _mm512_mul_ps(rest, linear), power), rounded)};
}

ALWAYS_INLINE float reduce_add(Vec a) { return _mm512_reduce_add_ps(a.v); }

#ifdef EFFNET_FAST_HAS_BF16_DOT
// c + a0*b0 + a1*b1 per lane, for the pair of bf16 values at `pair` and sixteen pairs of weights.
ALWAYS_INLINE Vec broadcast_pair(const bfloat16* pair) {
  int32_t bits;
  std::memcpy(&bits, pair, sizeof bits);
  return {_mm512_castsi512_ps(_mm512_set1_epi32(bits))};
}
ALWAYS_INLINE Vec load_pairs(const bfloat16* p) { return {_mm512_loadu_ps(p)}; }
ALWAYS_INLINE Vec dot_pairs(Vec a, Vec b, Vec c) {
  return {_mm512_dpbf16_ps(c.v, (__m512bh)_mm512_castps_si512(a.v), (__m512bh)_mm512_castps_si512(b.v))};
}
// Eight pixels of three values as pixels of four, the last of them zero; reads eight values more.
ALWAYS_INLINE void store_widened_pixels(bfloat16* to, const bfloat16* from) {
  alignas(64) static constexpr uint16_t kFrom[32] = {0,  1,  2,  0, 3,  4,  5,  0, 6,  7,  8,  0, 9,  10, 11, 0,
                                                     12, 13, 14, 0, 15, 16, 17, 0, 18, 19, 20, 0, 21, 22, 23, 0};
  const __m512i pixels = _mm512_loadu_si512(from);
  _mm512_storeu_si512(to, _mm512_maskz_permutexvar_epi16(0x77777777u, _mm512_load_si512(kFrom), pixels));
}
// Sixteen pairs with the first of each times `first` and the second times `second`, rounded again.
ALWAYS_INLINE Vec scale_pairs(const float* p, Vec first, Vec second) {
  const __m512i a = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(mul(first_of_pairs(p), first).v));
  const __m512i b = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(mul(second_of_pairs(p), second).v));
  return {_mm512_castsi512_ps(_mm512_or_si512(a, _mm512_slli_epi32(b, 16)))};
}
#endif
