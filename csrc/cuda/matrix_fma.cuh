// The same product without tensor cores: for float32, whose products must be IEEE float32 and never TF32, and for
// 16-bit maps whose channels are no multiple of 8. A block makes 64 rows by 64 columns, a thread 8 by 4 of them;
// both operands are converted to float32 on their way to shared memory.
#pragma once

#include "matrix.cuh"

namespace effnet_fast::cuda {

// kVector: values of one access, 4 for aligned float32, else 1.
template <class T_, int kVector_, bool kSilu_>
struct FmaTraits {
  using T = T_;
  static constexpr int kVector = kVector_;
  static constexpr bool kSilu = kSilu_;
  static constexpr int kThreads = 128;
  static constexpr int kColumns = 64, kDepth = 16;  // of a step
  static constexpr int kThreadRows = 8, kThreadColumns = 4;
  static constexpr int kRowThreads = kGroupRows / kThreadRows, kColumnThreads = kColumns / kThreadColumns;
  static constexpr int kLoads = kGroupRows * kDepth / kVector / kThreads;  // of a thread, step and operand
  static constexpr int kPitch = 64 + 4;                                    // a multiple of 16 bytes
  static constexpr int kOperand = kDepth * kPitch;
  static constexpr int kSharedBytes = 2 * 2 * kOperand * 4;  // two steps of two operands
  static_assert(kGroupRows == kColumns && kRowThreads * kColumnThreads == kThreads);
  static_assert(kVector == 1 || (kVector == 4 && sizeof(T) == 4));
};

template <class Traits>
class FmaLoop {
 public:
  using T = typename Traits::T;
  using Sums = float[Traits::kThreadRows][4];  // [row()][column()] on

  __device__ FmaLoop(const MatrixArgs<T>& args, int first_column) : args_(args), first_column_(first_column) {}

  __device__ static int row() { return static_cast<int>(threadIdx.x) / Traits::kColumnThreads * Traits::kThreadRows; }
  __device__ int column() const { return first_column_ + thread_column(); }

  using Values = float[Traits::kLoads][Traits::kVector];  // what a thread loads of an operand for a step

  // The weights of the step from k on.
  __device__ __forceinline__ void load_weights(int k, Values& weight) const {
#pragma unroll
    for (int i = 0; i < Traits::kLoads; i++) {
      const int depth = k + load_depth(i), column = first_column_ + load_row(i);
#pragma unroll
      for (int v = 0; v < Traits::kVector; v++) weight[i][v] = 0.0f;
      if (depth < args_.k && column < args_.columns) {
        unpack(load_constant<Access>(args_.weight + (static_cast<int64_t>(column) * args_.k + depth)), weight[i]);
      }
    }
  }

  // With `weight` of the first step. All threads call it. Shared memory is free again behind it.
  __device__ __forceinline__ void multiply(const RowGroup& group, Values& weight, Sums& sums) const {
#pragma unroll
    for (int j = 0; j < Traits::kThreadColumns; j++) {
      const bool inside = args_.bias && column() + j < args_.columns;
      const float bias = inside ? load_constant<float>(args_.bias + (column() + j)) : 0.0f;
#pragma unroll
      for (int i = 0; i < Traits::kThreadRows; i++) sums[i][j] = bias;
    }
    Values x;
    load_rows(group, 0, x);
    int buffer = 0;
    for (int k = 0; k < args_.k; k += Traits::kDepth, buffer ^= 1) {
      const Shared<float> rows = shared_memory<float>() + buffer * 2 * Traits::kOperand;
      const Shared<float> columns = rows + Traits::kOperand;
      store_step(rows, x);
      store_step(columns, weight);
      // One barrier a step: who stores to this buffer again has passed the next one, and so have its readers.
      ptx::sync_threads();
      if (k + Traits::kDepth < args_.k) {
        load_rows(group, k + Traits::kDepth, x);
        load_weights(k + Traits::kDepth, weight);
      }
#pragma unroll
      for (int d = 0; d < Traits::kDepth; d++) {
        float a[2][4], b[4];
        unpack(load<Pack<float, 4>>(rows + (d * Traits::kPitch + row())), a[0]);
        unpack(load<Pack<float, 4>>(rows + (d * Traits::kPitch + row() + 4)), a[1]);
        unpack(load<Pack<float, 4>>(columns + (d * Traits::kPitch + thread_column())), b);
#pragma unroll
        for (int i = 0; i < Traits::kThreadRows; i++) {
#pragma unroll
          for (int j = 0; j < 4; j++) sums[i][j] = ptx::fma(a[i / 4][i % 4], b[j], sums[i][j]);
        }
      }
    }
    ptx::sync_threads();
  }

 private:
  using Access = Pack<T, Traits::kVector>;

  __device__ static int thread_column() {
    return static_cast<int>(threadIdx.x) % Traits::kColumnThreads * Traits::kThreadColumns;
  }

  // Neighbouring threads have neighbouring rows, so that a transposing store meets 32 banks.
  __device__ static int load_row(int i) { return (i * Traits::kThreads + static_cast<int>(threadIdx.x)) % kGroupRows; }
  __device__ static int load_depth(int i) {
    return (i * Traits::kThreads + static_cast<int>(threadIdx.x)) / kGroupRows * Traits::kVector;
  }

  __device__ __forceinline__ void load_rows(const RowGroup& group, int k, Values& x) const {
#pragma unroll
    for (int i = 0; i < Traits::kLoads; i++) {
      const int row = load_row(i), depth = k + load_depth(i);
#pragma unroll
      for (int v = 0; v < Traits::kVector; v++) x[i][v] = 0.0f;
      if (depth < args_.k && row < group.count) {
        unpack(load<Access>(args_.x + ((group.first + row) * args_.k + depth)), x[i]);
        if (args_.gate) {
          float gate[Traits::kVector];
          unpack(load<Pack<float, Traits::kVector>>(args_.gate + (static_cast<int64_t>(group.image) * args_.k + depth)),
                 gate);
#pragma unroll
          for (int v = 0; v < Traits::kVector; v++) x[i][v] = to_float(to_storage<T>(x[i][v] * gate[v]));
        }
      }
    }
  }

  __device__ __forceinline__ void store_step(Shared<float> to, const Values& values) const {
#pragma unroll
    for (int i = 0; i < Traits::kLoads; i++) {
#pragma unroll
      for (int v = 0; v < Traits::kVector; v++) {
        store(to + ((load_depth(i) + v) * Traits::kPitch + load_row(i)), values[i][v]);
      }
    }
  }

  const MatrixArgs<T>& args_;
  const int first_column_;
};

}  // namespace effnet_fast::cuda
