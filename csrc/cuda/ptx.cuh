// Every PTX instruction and CUDA intrinsic that kernels use, under the names that the emulator gives them too
// (csrc/emulation/device.h). sm_80 is the floor. Memory is reached through memory.cuh, which adds types to this.
//
// Warp functions (shuffles, ldmatrix, mma) are for whole warps: all 32 lanes call the same one.
#pragma once

#include <cstdint>

#ifdef EFFNET_FAST_EMULATION
#include "../emulation/device.h"
#else

#include <cuda_runtime.h>

namespace effnet_fast::cuda {

// Where a kernel accesses memory or waits: the emulator's reports name it. Nothing on a GPU.
struct Site {
  static __device__ constexpr Site current() { return {}; }
};

}  // namespace effnet_fast::cuda

namespace effnet_fast::cuda::ptx {

// Threads

__device__ __forceinline__ unsigned lane() { return threadIdx.x % 32; }
__device__ __forceinline__ void sync_threads(Site = {}) { __syncthreads(); }
__device__ __forceinline__ void sync_warp(Site = {}) { __syncwarp(); }

template <class T>
__device__ __forceinline__ T shuffle(T value, int source_lane, Site = {}) {
  return __shfl_sync(0xffffffffu, value, source_lane);
}
template <class T>
__device__ __forceinline__ T shuffle_xor(T value, int mask, Site = {}) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
__device__ __forceinline__ uint32_t ballot(bool predicate, Site = {}) { return __ballot_sync(0xffffffffu, predicate); }

// Programmatic dependent launch: wait until the launch before this one has finished and its writes are visible, and
// allow the launch after this one to start. Every thread of a kernel with LaunchShape::dependent_launch waits.
__device__ __forceinline__ void grid_dependency_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void grid_dependency_launch() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Memory. Value is a trivial type of 1, 2, 4, 8 or 16 bytes, and the address is a multiple of its size.

template <class Value>
__device__ __forceinline__ Value load_global(const void* address, Site = {}) {
  return *static_cast<const Value*>(address);
}

// Through the read-only path. The compiler may move it over anything, a grid_dependency_wait() too: only for what no
// launch in flight writes.
template <class Value>
__device__ __forceinline__ Value load_global_constant(const void* address, Site = {}) {
  if constexpr (sizeof(Value) == 16) {
    const uint4 bits = __ldg(static_cast<const uint4*>(address));
    return reinterpret_cast<const Value&>(bits);
  } else if constexpr (sizeof(Value) == 8) {
    const uint2 bits = __ldg(static_cast<const uint2*>(address));
    return reinterpret_cast<const Value&>(bits);
  } else if constexpr (sizeof(Value) == 4) {
    const uint32_t bits = __ldg(static_cast<const uint32_t*>(address));
    return reinterpret_cast<const Value&>(bits);
  } else if constexpr (sizeof(Value) == 2) {
    const uint16_t bits = __ldg(static_cast<const uint16_t*>(address));
    return reinterpret_cast<const Value&>(bits);
  } else {
    static_assert(sizeof(Value) == 1);
    const uint8_t bits = __ldg(static_cast<const uint8_t*>(address));
    return reinterpret_cast<const Value&>(bits);
  }
}

// From the L2 cache: for what other blocks of this grid wrote before a fence.
template <class Value>
__device__ __forceinline__ Value load_global_coherent(const void* address, Site = {}) {
  if constexpr (sizeof(Value) == 16) {
    const uint4 bits = __ldcg(static_cast<const uint4*>(address));
    return reinterpret_cast<const Value&>(bits);
  } else {
    static_assert(sizeof(Value) == 4);
    const uint32_t bits = __ldcg(static_cast<const uint32_t*>(address));
    return reinterpret_cast<const Value&>(bits);
  }
}

// Brings the line of a weight to the L2 cache; nothing waits for it. Like load_global_constant(), only for what no
// launch in flight writes.
__device__ __forceinline__ void prefetch(const void* address, Site = {}) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
}

template <class Value>
__device__ __forceinline__ void store_global(void* address, const Value& value, Site = {}) {
  *static_cast<Value*>(address) = value;
}

__device__ __forceinline__ int atomic_add(void* address, int value, Site = {}) {
  return atomicAdd(static_cast<int*>(address), value);
}
__device__ __forceinline__ void thread_fence() { __threadfence(); }

// Shared memory has 32-bit addresses: no 64-bit arithmetic, and nothing to dereference by accident.
__device__ __forceinline__ uint32_t dynamic_shared() {
  extern __shared__ __align__(128) unsigned char effnet_fast_dynamic_shared[];
  return static_cast<uint32_t>(__cvta_generic_to_shared(effnet_fast_dynamic_shared));
}

template <class Value>
__device__ __forceinline__ Value load_shared(uint32_t address, Site = {}) {
  return *static_cast<const Value*>(__cvta_shared_to_generic(address));
}

template <class Value>
__device__ __forceinline__ void store_shared(uint32_t address, const Value& value, Site = {}) {
  *static_cast<Value*>(__cvta_shared_to_generic(address)) = value;
}

// kBytes are copied where `inside`, else as many zeros are written and `source`, which must be a valid address,
// is not read. 16 bytes bypass L1; 4 and 8 cannot.
template <int kBytes>
__device__ __forceinline__ void cp_async(uint32_t destination, const void* source, bool inside, Site = {}) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  const int bytes = inside ? kBytes : 0;
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(destination), "l"(source), "r"(bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(destination), "l"(source), "n"(kBytes),
                 "r"(bytes)
                 : "memory");
  }
}
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits for this thread's copies of all but the latest kGroups groups; others' need a sync_threads() behind it.
template <int kGroups>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}

// Matrices. Lane l gives the address of row l % 8 of the 8 x 8 matrix l / 8 (16 bytes a row, aligned); register m is
// the pair at row l / 4, columns 2 (l % 4) and + 1, of matrix m, or with kTranspose at column l / 4, rows 2 (l % 4)
// and + 1. Of two matrices, only lanes 0 to 15 give addresses.
template <bool kTranspose = false>
__device__ __forceinline__ void ldmatrix(uint32_t (&r)[4], uint32_t row, Site = {}) {
  if constexpr (kTranspose) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
  }
}
template <bool kTranspose = false>
__device__ __forceinline__ void ldmatrix(uint32_t (&r)[2], uint32_t row, Site = {}) {
  if constexpr (kTranspose) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(row)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(row)
                 : "memory");
  }
}

// Four 8 x 8 matrices back to shared memory: the registers and addresses of ldmatrix. Only where has_stmatrix(); else
// a fragment goes by stores of 4 bytes.
__device__ constexpr bool has_stmatrix() {
#if __CUDA_ARCH__ >= 900
  return true;
#else
  return false;
#endif
}
__device__ __forceinline__ void stmatrix(uint32_t row, const uint32_t (&r)[4], Site = {}) {
#if __CUDA_ARCH__ >= 900
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row), "r"(r[0]), "r"(r[1]),
               "r"(r[2]), "r"(r[3])
               : "memory");
#endif
}

// d += a b, with a of 16 x 16 by rows, b of 16 x 8 by columns, d of 16 x 8 in float32. With g = lane / 4, t = lane % 4:
//   a[0], a[1]: rows g, g + 8 at columns 2t, 2t + 1      a[2], a[3]: the same at columns 2t + 8, 2t + 9
//   b[0], b[1]: column g at rows 2t, 2t + 1 and 2t + 8, 2t + 9
//   d[0], d[1]: row g at columns 2t, 2t + 1              d[2], d[3]: row g + 8
__device__ __forceinline__ void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site = {}) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site = {}) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// d = a b + c: where c is another register than d, or zero, that costs no move.
__device__ __forceinline__ void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                        const float (&c)[4], Site = {}) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%10, %11, %12, %13};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}
__device__ __forceinline__ void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                         const float (&c)[4], Site = {}) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%10, %11, %12, %13};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}
// Half of it, with a of 16 x 8 and b of 8 x 8: a[0], a[1] and b[0] as above.
__device__ __forceinline__ void mma_f16(float (&d)[4], const uint32_t (&a)[2], uint32_t b, const float (&c)[4],
                                        Site = {}) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%7, %8, %9, %10};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(b), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}
__device__ __forceinline__ void mma_bf16(float (&d)[4], const uint32_t (&a)[2], uint32_t b, const float (&c)[4],
                                         Site = {}) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%7, %8, %9, %10};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(b), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}

// Arithmetic

__device__ __forceinline__ float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
__device__ __forceinline__ float exp(float x) { return expf(x); }

// One MUFU; absolute error up to 5e-4, below the rounding of 16-bit results.
__device__ __forceinline__ float tanh_approx(float x) {
  float y;
  asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float reciprocal_approx(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// A NaN operand gives NaN, where fminf and fmaxf drop it.
__device__ __forceinline__ float min_nan(float a, float b) {
  float y;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
  return y;
}
__device__ __forceinline__ float max_nan(float a, float b) {
  float y;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
  return y;
}

// Two 16-bit values in a word, `low` at the lower address; to 16 bits rounded to nearest even.
__device__ __forceinline__ uint32_t pack_f16(float low, float high) {
  uint32_t word;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}
__device__ __forceinline__ float low_f16(uint32_t word) {
  float value;
  asm("{ .reg .b16 low, high; mov.b32 {low, high}, %1; cvt.f32.f16 %0, low; }" : "=f"(value) : "r"(word));
  return value;
}
__device__ __forceinline__ float high_f16(uint32_t word) {
  float value;
  asm("{ .reg .b16 low, high; mov.b32 {low, high}, %1; cvt.f32.f16 %0, high; }" : "=f"(value) : "r"(word));
  return value;
}
__device__ __forceinline__ float low_bf16(uint32_t word) { return __uint_as_float(word << 16); }
__device__ __forceinline__ float high_bf16(uint32_t word) { return __uint_as_float(word & 0xffff0000u); }

}  // namespace effnet_fast::cuda::ptx

#endif
