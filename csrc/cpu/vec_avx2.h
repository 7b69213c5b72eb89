// Eight float32 lanes: AVX2 with FMA and F16C. Same interface as vec_portable.h.

struct Vec {
  static constexpr int kWidth = 8;
  __m256 v;
};

ALWAYS_INLINE Vec set1(float value) { return {_mm256_set1_ps(value)}; }
ALWAYS_INLINE Vec broadcast(const float* p) { return {_mm256_broadcast_ss(p)}; }

// Keeps x in a register: GCC reads what was loaded anew for each use, and a core's two loads a cycle are soon too few.
ALWAYS_INLINE void keep_loaded(Vec& x) { asm("" : "+v"(x.v)); }

ALWAYS_INLINE Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
ALWAYS_INLINE Vec load(const float16* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
ALWAYS_INLINE Vec load(const bfloat16* p) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16))};
}
// Partial loads and stores go through the stack: AVX2 has no masked form for 16-bit lanes.
template <class T>
ALWAYS_INLINE Vec load_n(const T* p, int n) {
  T lanes[8] = {};
  std::memcpy(lanes, p, sizeof(T) * n);
  return load(lanes);
}

ALWAYS_INLINE void store(float* p, Vec a) { _mm256_storeu_ps(p, a.v); }
ALWAYS_INLINE void store(float16* p, Vec a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}
ALWAYS_INLINE void store(bfloat16* p, Vec a) {
  const __m256i bits = _mm256_castps_si256(a.v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x00400000));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q));
  const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(high, high), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
}
template <class T>
ALWAYS_INLINE void store_n(T* p, Vec a, int n) {
  T lanes[8];
  store(lanes, a);
  std::memcpy(p, lanes, sizeof(T) * n);
}

ALWAYS_INLINE Vec add(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
ALWAYS_INLINE Vec mul(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
ALWAYS_INLINE Vec div(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
ALWAYS_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }

// The instruction returns its second operand when either is NaN, so x comes second.
ALWAYS_INLINE Vec at_least(Vec limit, Vec x) { return {_mm256_max_ps(limit.v, x.v)}; }
ALWAYS_INLINE Vec at_most(Vec limit, Vec x) { return {_mm256_min_ps(limit.v, x.v)}; }

// 2^x for x in [-126, 128]; 128 gives infinity. `mantissa(f)` approximates 2^f for f in [-0.5, 0.5].
inline constexpr float kFractionFrom = -0.5f;
template <class Polynomial>
ALWAYS_INLINE Vec exp2_by(Vec x, Polynomial mantissa) {
  const Vec clamped = at_least(set1(-126.0f), at_most(set1(128.0f), x));
  const Vec rounded = {_mm256_round_ps(clamped.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  const Vec fraction = {_mm256_sub_ps(clamped.v, rounded.v)};
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(rounded.v), _mm256_set1_epi32(127));
  return mul(mantissa(fraction), {_mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23))});
}

ALWAYS_INLINE float reduce_add(Vec a) {
  const __m128 half = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  const __m128 pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps(pair, pair, 1)));
}
