// pointwise_conv for a handful of float32 rows, such as the classifier of a small batch: a product with a tall weight
// of which every value is used a few times, so that reading it is all the time there is. A warp makes one column for
// kRows rows, its lanes along the sum. For 1000 classes that is 250 blocks, where tiles of 64 x 64 are 16.
#pragma once

#include "activation.cuh"
#include "matrix.cuh"

namespace effnet_fast::cuda {

template <int kRows_>
struct PointwiseRowsTraits {
  static constexpr int kRows = kRows_;
  static constexpr int kColumns = 4;  // of a block: a warp each
  static constexpr int kThreads = 32 * kColumns;
  static constexpr int kBlocks = kRows == 1 ? 6 : 5;  // of a multiprocessor: with six, 80 registers, eight rows spill
  static constexpr int kVector = 4;
  static constexpr int kAhead = 8;  // loads of a lane in flight: 4 KiB of weights a warp, all of a sum of 1024 values
  static constexpr int kStep = 32 * kVector * kAhead;
};

struct PointwiseRowsArgs {
  MatrixArgs<float> matrix;  // without a gate
  Global<float> y;           // [rows, columns]
  int rows, column_blocks;
  Activation activation;
};

template <class Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kBlocks)
    pointwise_conv_rows_kernel(const __grid_constant__ PointwiseRowsArgs args) {
  constexpr int kRows = Traits::kRows, kVector = Traits::kVector;
  using Values = Pack<float, kVector>;
  const int row_block = blockIdx.x / args.column_blocks, first_row = row_block * kRows;
  const int column = (blockIdx.x - row_block * args.column_blocks) * Traits::kColumns + threadIdx.x / 32;
  const int lane = ptx::lane(), k = args.matrix.k, columns = args.matrix.columns;
  const bool inside = column < columns;

  // Weights do not depend on the launch before: they travel while it drains.
  Values ahead[Traits::kAhead];
  const Global<const float> weight = args.matrix.weight + static_cast<int64_t>(inside ? column : 0) * k;
  const auto load_weights = [&](int step) {
#pragma unroll
    for (int i = 0; i < Traits::kAhead; i++) {
      const int at = step + (32 * i + lane) * kVector;
      ahead[i] = at < k ? load_constant<Values>(weight + at) : Values{};
    }
  };
  load_weights(0);
  const float bias = args.matrix.bias && inside ? load_constant<float>(args.matrix.bias + column) : 0.0f;
  ptx::grid_dependency_launch();
  ptx::grid_dependency_wait();
  if (!inside) return;

  float sums[kRows] = {};
  for (int step = 0; step < k; step += Traits::kStep) {
#pragma unroll
    for (int i = 0; i < Traits::kAhead; i++) {
      const int at = step + (32 * i + lane) * kVector;
      if (at >= k) break;
      float weights[kVector];
      unpack(ahead[i], weights);
#pragma unroll
      for (int r = 0; r < kRows; r++) {
        if (first_row + r >= args.rows) break;
        float x[kVector];
        unpack(load<Values>(args.matrix.x + (static_cast<int64_t>(first_row + r) * k + at)), x);
#pragma unroll
        for (int v = 0; v < kVector; v++) sums[r] = ptx::fma(weights[v], x[v], sums[r]);
      }
    }
    if (step + Traits::kStep < k) load_weights(step + Traits::kStep);
  }

#pragma unroll
  for (int r = 0; r < kRows; r++) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) sums[r] += ptx::shuffle_xor(sums[r], distance);
    if (lane != r || first_row + r >= args.rows) continue;
    const int64_t at = static_cast<int64_t>(first_row + r) * columns + column;
    float value = activate(args.activation, sums[r] + bias);
    if (args.matrix.residual) value += load<float>(args.matrix.residual + at);
    store(args.y + at, value);
  }
}

}  // namespace effnet_fast::cuda
