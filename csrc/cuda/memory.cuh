// Typed addresses. Kernels reach memory only through these: a Global or a Shared has nothing to dereference, so every
// access is one that the emulator can check for bounds, alignment and races.
#pragma once

#include <type_traits>

#include "ptx.cuh"

namespace effnet_fast::cuda {

// An address in a tensor; offsets are in elements, and 64-bit. Args structs hold these, made from plain pointers.
template <class T>
struct Global {
  T* pointer = nullptr;

  Global() = default;
  __host__ __device__ constexpr Global(T* p) : pointer(p) {}
  template <class U>
    requires std::is_same_v<const U, T>
  __host__ __device__ constexpr Global(Global<U> writable) : pointer(writable.pointer) {}
  __device__ __forceinline__ Global operator+(int64_t elements) const { return {pointer + elements}; }
  __host__ __device__ explicit operator bool() const { return pointer != nullptr; }
};

// An address in the block's dynamic shared memory; offsets are in elements.
template <class T>
struct Shared {
  uint32_t address;

  __device__ __forceinline__ Shared operator+(int elements) const {
    return {address + static_cast<uint32_t>(elements) * static_cast<uint32_t>(sizeof(T))};
  }
};

// The dynamic shared memory of this block from `byte_offset` on; its start is 128-byte aligned.
template <class T>
__device__ __forceinline__ Shared<T> shared_memory(int byte_offset = 0) {
  return {ptx::dynamic_shared() + static_cast<uint32_t>(byte_offset)};
}

// load<Value>(address): Value has 1, 2, 4, 8 or 16 bytes (storage.cuh: Pack<half, 8>), and the address must be a
// multiple of its size.
template <class Value, class T>
__device__ __forceinline__ Value load(Global<T> from, Site site = Site::current()) {
  return ptx::load_global<Value>(from.pointer, site);
}
template <class Value, class T>
__device__ __forceinline__ Value load(Shared<T> from, Site site = Site::current()) {
  return ptx::load_shared<Value>(from.address, site);
}

// For weights and whatever else no launch in flight writes: unlike load(), it may be moved over a
// grid_dependency_wait(), so never for what the launch before this one made.
template <class Value, class T>
__device__ __forceinline__ Value load_constant(Global<T> from, Site site = Site::current()) {
  return ptx::load_global_constant<Value>(from.pointer, site);
}

// Weights that are read later, on their way to the L2 cache.
template <class T>
__device__ __forceinline__ void prefetch(Global<T> line, Site site = Site::current()) {
  ptx::prefetch(line.pointer, site);
}

// For what another block of this grid wrote, before thread_fence() and an atomic_add() that this thread has seen.
template <class Value, class T>
__device__ __forceinline__ Value load_coherent(Global<T> from, Site site = Site::current()) {
  return ptx::load_global_coherent<Value>(from.pointer, site);
}

template <class Value, class T>
__device__ __forceinline__ void store(Global<T> to, const Value& value, Site site = Site::current()) {
  ptx::store_global(to.pointer, value, site);
}
template <class Value, class T>
__device__ __forceinline__ void store(Shared<T> to, const Value& value, Site site = Site::current()) {
  ptx::store_shared(to.address, value, site);
}

// Copies kBytes (4, 8 or 16) in the background; with inside = false it writes zeros and reads nothing.
// Then ptx::cp_async_commit(), ptx::cp_async_wait<kGroups>(), and ptx::sync_threads() before other threads read.
template <int kBytes, class T, class U>
__device__ __forceinline__ void cp_async(Shared<T> to, Global<U> from, bool inside = true,
                                         Site site = Site::current()) {
  ptx::cp_async<kBytes>(to.address, from.pointer, inside, site);
}

// Rows of 8 x 8 matrices of 16-bit values to fragments of an mma: see ptx::ldmatrix.
template <bool kTranspose = false, int kMatrices, class T>
__device__ __forceinline__ void ldmatrix(uint32_t (&registers)[kMatrices], Shared<T> row, Site site = Site::current()) {
  static_assert(sizeof(T) == 2);
  ptx::ldmatrix<kTranspose>(registers, row.address, site);
}

// Fragments back to rows of matrices: see ptx::stmatrix.
template <class T>
__device__ __forceinline__ void stmatrix(Shared<T> row, const uint32_t (&registers)[4], Site site = Site::current()) {
  static_assert(sizeof(T) == 2);
  ptx::stmatrix(row.address, registers, site);
}

// The value before; a ticket, never a sum of floats (their order would be random).
__device__ __forceinline__ int atomic_add(Global<int> at, int value, Site site = Site::current()) {
  return ptx::atomic_add(at.pointer, value, site);
}

}  // namespace effnet_fast::cuda
