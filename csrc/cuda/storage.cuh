// Storage types of maps and weights, and packs of them: what one access moves, converted to and from float32.
#pragma once

#include "../common/dtype.h"
#include "memory.cuh"

namespace effnet_fast::cuda {

struct half {
  uint16_t bits;
};
struct bfloat16 {
  uint16_t bits;
};

// Calls function.template operator()<T>() for the storage type of a call.
template <class Function>
void with_storage(DType dtype, Function&& function) {
  switch (dtype) {
    case DType::kFloat32: return function.template operator()<float>();
    case DType::kFloat16: return function.template operator()<half>();
    case DType::kBFloat16: return function.template operator()<bfloat16>();
    case DType::kUInt8: return;  // pixels only; never a storage type
  }
}

// Values in 16 bytes, the widest access.
template <class T>
inline constexpr int kVector = 16 / sizeof(T);

// kCount values as memory has them, in registers.
template <class T, int kCount>
struct alignas(kCount * sizeof(T)) Pack {
  static_assert(kCount * sizeof(T) % 4 == 0 && kCount * sizeof(T) <= 16);
  uint32_t words[kCount * sizeof(T) / 4];
};
template <int kCount>
struct alignas(kCount * sizeof(float)) Pack<float, kCount> {
  static_assert(kCount <= 4);
  float words[kCount];
};
template <>
struct Pack<half, 1> {
  half value;
};
template <>
struct Pack<bfloat16, 1> {
  bfloat16 value;
};

template <class T>
__device__ __forceinline__ float low_of(uint32_t word) {
  if constexpr (std::is_same_v<T, half>)
    return ptx::low_f16(word);
  else
    return ptx::low_bf16(word);
}
template <class T>
__device__ __forceinline__ float high_of(uint32_t word) {
  if constexpr (std::is_same_v<T, half>)
    return ptx::high_f16(word);
  else
    return ptx::high_bf16(word);
}
// Two values rounded to T in one word.
template <class T>
__device__ __forceinline__ uint32_t pack_word(float low, float high) {
  if constexpr (std::is_same_v<T, half>)
    return ptx::pack_f16(low, high);
  else
    return ptx::pack_bf16(low, high);
}

template <class T, int kCount>
__device__ __forceinline__ void unpack(const Pack<T, kCount>& pack, float (&values)[kCount]) {
  if constexpr (std::is_same_v<T, float>) {
#pragma unroll
    for (int i = 0; i < kCount; i++) values[i] = pack.words[i];
  } else if constexpr (kCount == 1) {
    values[0] = low_of<T>(pack.value.bits);
  } else {
#pragma unroll
    for (int i = 0; i < kCount / 2; i++) {
      values[2 * i] = low_of<T>(pack.words[i]);
      values[2 * i + 1] = high_of<T>(pack.words[i]);
    }
  }
}

// Each value rounded once, to nearest even.
template <class T, int kCount>
__device__ __forceinline__ Pack<T, kCount> pack(const float (&values)[kCount]) {
  Pack<T, kCount> result;
  if constexpr (std::is_same_v<T, float>) {
#pragma unroll
    for (int i = 0; i < kCount; i++) result.words[i] = values[i];
  } else if constexpr (kCount == 1) {
    result.value.bits = static_cast<uint16_t>(pack_word<T>(values[0], 0.0f));
  } else {
#pragma unroll
    for (int i = 0; i < kCount / 2; i++) result.words[i] = pack_word<T>(values[2 * i], values[2 * i + 1]);
  }
  return result;
}

template <class T>
__device__ __forceinline__ float to_float(T value) {
  if constexpr (std::is_same_v<T, float>)
    return value;
  else
    return low_of<T>(value.bits);
}
template <class T>
__device__ __forceinline__ T to_storage(float value) {
  if constexpr (std::is_same_v<T, float>)
    return value;
  else
    return T{static_cast<uint16_t>(pack_word<T>(value, 0.0f))};
}

// d += a b on the tensor cores, for 16-bit T: see ptx::mma_f16 for the fragments.
template <class T>
__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                    Site site = Site::current()) {
  static_assert(std::is_same_v<T, half> || std::is_same_v<T, bfloat16>);
  if constexpr (std::is_same_v<T, half>)
    ptx::mma_f16(d, a, b, site);
  else
    ptx::mma_bf16(d, a, b, site);
}
// d = a b + c, over 16 products or, with one register of b, over 8.
template <class T, int kRegisters, class Operand>
__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[kRegisters], const Operand& b,
                                    const float (&c)[4], Site site = Site::current()) {
  static_assert(std::is_same_v<T, half> || std::is_same_v<T, bfloat16>);
  if constexpr (std::is_same_v<T, half>)
    ptx::mma_f16(d, a, b, c, site);
  else
    ptx::mma_bf16(d, a, b, c, site);
}

}  // namespace effnet_fast::cuda
