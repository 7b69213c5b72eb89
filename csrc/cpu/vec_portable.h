// Four float32 lanes in the compiler's portable vectors: SSE2 on x86-64, NEON on AArch64, anything elsewhere.
// Included inside an instruction set's namespace (see isa_portable.cpp).

struct Vec {
  static constexpr int kWidth = 4;
  typedef float Register __attribute__((vector_size(16)));
  typedef int32_t Integer __attribute__((vector_size(16)));
  Register v;
};

ALWAYS_INLINE Vec set1(float value) { return {Vec::Register{value, value, value, value}}; }
ALWAYS_INLINE Vec broadcast(const float* p) { return set1(*p); }

ALWAYS_INLINE void keep_loaded(Vec&) {}  // up to the compiler

ALWAYS_INLINE Vec load(const float* p) {
  Vec r;
  std::memcpy(&r.v, p, sizeof r.v);
  return r;
}
template <class T>
ALWAYS_INLINE Vec load(const T* p) {
  return {Vec::Register{to_float(p[0]), to_float(p[1]), to_float(p[2]), to_float(p[3])}};
}
template <class T>
ALWAYS_INLINE Vec load_n(const T* p, int n) {  // lanes n.. are zero and are not read
  Vec r = set1(0.0f);
  for (int i = 0; i < n; i++) r.v[i] = to_float(p[i]);
  return r;
}

ALWAYS_INLINE void store(float* p, Vec a) { std::memcpy(p, &a.v, sizeof a.v); }
template <class T>
ALWAYS_INLINE void store(T* p, Vec a) {
  for (int i = 0; i < Vec::kWidth; i++) p[i] = from_float<T>(a.v[i]);
}
template <class T>
ALWAYS_INLINE void store_n(T* p, Vec a, int n) {
  for (int i = 0; i < n; i++) p[i] = from_float<T>(a.v[i]);
}

ALWAYS_INLINE Vec add(Vec a, Vec b) { return {a.v + b.v}; }
ALWAYS_INLINE Vec mul(Vec a, Vec b) { return {a.v * b.v}; }
ALWAYS_INLINE Vec div(Vec a, Vec b) { return {a.v / b.v}; }
ALWAYS_INLINE Vec fma(Vec a, Vec b, Vec c) { return {a.v * b.v + c.v}; }

// `limit` against x; a NaN in x is returned, as the contract asks of relu and relu6.
ALWAYS_INLINE Vec at_least(Vec limit, Vec x) { return {limit.v > x.v ? limit.v : x.v}; }
ALWAYS_INLINE Vec at_most(Vec limit, Vec x) { return {limit.v < x.v ? limit.v : x.v}; }

// 2^x for x in [-126, 128]; 128 gives infinity. `mantissa(f)` approximates 2^f for f in [-0.5, 0.5].
inline constexpr float kFractionFrom = -0.5f;
template <class Polynomial>
ALWAYS_INLINE Vec exp2_by(Vec x, Polynomial mantissa) {
  const Vec clamped = at_least(set1(-126.0f), at_most(set1(128.0f), x));
  const Vec magic = set1(12582912.0f);  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  const Vec shifted = add(clamped, magic);
  const Vec fraction = {clamped.v - (shifted.v - magic.v)};
  const Vec::Integer exponent = (Vec::Integer)shifted.v - (Vec::Integer)magic.v;
  const Vec power = {(Vec::Register)((exponent + 127) << 23)};
  return mul(mantissa(fraction), power);
}

ALWAYS_INLINE float reduce_add(Vec a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
