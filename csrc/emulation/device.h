// The names of csrc/cuda/ptx.cuh on a CPU: the same signatures, carried out and checked by the running Block.
#pragma once

#include <algorithm>
#include <cmath>

#include "block.h"
#include "warp.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __grid_constant__

namespace effnet_fast::cuda {
using Site = std::source_location;
}

namespace effnet_fast::cuda::ptx {

using emulation::g_block;

inline unsigned lane() { return threadIdx.x % 32; }
inline void sync_threads(Site site = Site::current()) { g_block->sync_threads(site); }
inline void sync_warp(Site site = Site::current()) { g_block->sync_warp(site); }

template <class T>
T shuffle(T value, int source_lane, Site site = Site::current()) {
  static_assert(sizeof(T) <= 8);
  emulation::ShuffleOperand operand{0, 0, source_lane};
  std::memcpy(&operand.value, &value, sizeof value);
  g_block->collective("shuffle", &operand, &emulation::shuffle, site);
  std::memcpy(&value, &operand.result, sizeof value);
  return value;
}
template <class T>
T shuffle_xor(T value, int mask, Site site = Site::current()) {
  return shuffle(value, static_cast<int>(lane()) ^ mask, site);
}
inline uint32_t ballot(bool predicate, Site site = Site::current()) {
  emulation::BallotOperand operand{predicate, 0};
  g_block->collective("ballot", &operand, &emulation::ballot, site);
  return operand.result;
}

// Launches run one after the other, and blocks one at a time: nothing to wait for, and every write is visible.
inline void grid_dependency_wait() { g_block->grid_dependency_wait(); }
inline void grid_dependency_launch() {}
inline void thread_fence() {}

template <class Value>
Value load_global(const void* address, Site site = Site::current()) {
  Value value;
  g_block->load_global(address, sizeof value, false, &value, site);
  return value;
}
template <class Value>
Value load_global_constant(const void* address, Site site = Site::current()) {
  Value value;
  g_block->load_constant(address, sizeof value, &value, site);
  return value;
}
template <class Value>
Value load_global_coherent(const void* address, Site site = Site::current()) {
  Value value;
  g_block->load_global(address, sizeof value, true, &value, site);
  return value;
}
inline void prefetch(const void* address, Site site = Site::current()) {
  unsigned char byte;
  g_block->load_constant(address, 1, &byte, site);
}
template <class Value>
void store_global(void* address, const Value& value, Site site = Site::current()) {
  g_block->store_global(address, sizeof value, &value, site);
}
inline int atomic_add(void* address, int value, Site site = Site::current()) {
  return g_block->atomic_add(address, value, site);
}

inline uint32_t dynamic_shared() { return 0; }
template <class Value>
Value load_shared(uint32_t address, Site site = Site::current()) {
  Value value;
  g_block->load_shared(address, sizeof value, &value, site);
  return value;
}
template <class Value>
void store_shared(uint32_t address, const Value& value, Site site = Site::current()) {
  g_block->store_shared(address, sizeof value, &value, site);
}

template <int kBytes>
void cp_async(uint32_t destination, const void* source, bool inside, Site site = Site::current()) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  g_block->cp_async(destination, source, kBytes, inside, site);
}
inline void cp_async_commit() { g_block->cp_async_commit(); }
template <int kGroups>
void cp_async_wait() {
  g_block->cp_async_wait(kGroups);
}

template <bool kTranspose = false, int kMatrices>
void ldmatrix(uint32_t (&registers)[kMatrices], uint32_t row, Site site = Site::current()) {
  static_assert(kMatrices == 2 || kMatrices == 4);
  emulation::LdmatrixOperand operand{{}, registers};
  if (static_cast<int>(lane()) < 8 * kMatrices) g_block->load_shared(row, 16, operand.row, site);
  g_block->collective("ldmatrix", &operand, &emulation::ldmatrix<kMatrices, kTranspose>, site);
}
inline bool has_stmatrix() { return emulation::g_stmatrix; }
inline void stmatrix(uint32_t row, const uint32_t (&registers)[4], Site site = Site::current()) {
  emulation::StmatrixOperand operand{{}, registers};
  g_block->collective("stmatrix", &operand, &emulation::stmatrix, site);
  g_block->store_shared(row, 16, operand.row, site);
}

inline void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const float (&c)[4],
                    Site site = Site::current()) {
  emulation::MmaOperand operand{d, a, b, c};
  g_block->collective("mma_f16", &operand, &emulation::mma<effnet_fast::float16, 16>, site);
}
inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const float (&c)[4],
                     Site site = Site::current()) {
  emulation::MmaOperand operand{d, a, b, c};
  g_block->collective("mma_bf16", &operand, &emulation::mma<effnet_fast::bfloat16, 16>, site);
}
inline void mma_f16(float (&d)[4], const uint32_t (&a)[2], uint32_t b, const float (&c)[4],
                    Site site = Site::current()) {
  emulation::MmaOperand operand{d, a, &b, c};
  g_block->collective("mma_f16 over 8", &operand, &emulation::mma<effnet_fast::float16, 8>, site);
}
inline void mma_bf16(float (&d)[4], const uint32_t (&a)[2], uint32_t b, const float (&c)[4],
                     Site site = Site::current()) {
  emulation::MmaOperand operand{d, a, &b, c};
  g_block->collective("mma_bf16 over 8", &operand, &emulation::mma<effnet_fast::bfloat16, 8>, site);
}
inline void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site site = Site::current()) {
  mma_f16(d, a, b, d, site);
}
inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site site = Site::current()) {
  mma_bf16(d, a, b, d, site);
}

inline float fma(float a, float b, float c) { return std::fma(a, b, c); }
inline float exp(float x) { return std::exp(x); }
inline float tanh_approx(float x) { return std::tanh(x); }
inline float exp2_approx(float x) { return std::exp2(x); }
inline float reciprocal_approx(float x) { return 1.0f / x; }
inline float min_nan(float a, float b) { return std::isnan(a) || a < b ? a : b; }
inline float max_nan(float a, float b) { return std::isnan(a) || a > b ? a : b; }

template <class Value>
uint32_t pack_words(float low, float high) {
  return effnet_fast::from_float<Value>(low).bits | static_cast<uint32_t>(effnet_fast::from_float<Value>(high).bits)
                                                        << 16;
}
inline uint32_t pack_f16(float low, float high) { return pack_words<effnet_fast::float16>(low, high); }
inline uint32_t pack_bf16(float low, float high) { return pack_words<effnet_fast::bfloat16>(low, high); }
inline float low_f16(uint32_t word) { return effnet_fast::to_float(effnet_fast::float16{static_cast<uint16_t>(word)}); }
inline float high_f16(uint32_t word) { return low_f16(word >> 16); }
inline float low_bf16(uint32_t word) { return float_of(word << 16); }
inline float high_bf16(uint32_t word) { return float_of(word & 0xffff0000u); }

}  // namespace effnet_fast::cuda::ptx
