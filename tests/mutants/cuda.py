"""Faults put into the sources of the CUDA kernels, one at a time."""

# ruff: noqa: E501 (one fault a line)

from __future__ import annotations

from tests.mutants.mutant import Mutant

FOLDER = "csrc/cuda"

MUTANTS = (
    Mutant("halo", "depthwise_conv.cuh", "if (origin_column + column >= 0 &&", "if (origin_column + column >= 1 &&"),
    Mutant("last row", "depthwise_conv.cuh", "r >= in_first) && r < in_end)", "r >= in_first) && r < in_end - 1)"),
    Mutant("stride phase", "depthwise_conv.cuh", "return (row - ky + kPeriod) % kStride == 0;", "return (row - ky + kPeriod) % kStride == kStride - 1;"),
    Mutant("padding swapped", "depthwise_conv.cuh", "args.groups * kColumns * kStride - args.left;", "args.groups * kColumns * kStride - args.top;"),
    Mutant("sums kept between images", "depthwise_conv.cuh", "  for (int image = first_image; image < end_image; image++) {\n    float totals[kChannels] = {};", "  float totals[kChannels] = {};\n  for (int image = first_image; image < end_image; image++) {"),
    Mutant("pool after rounding", "depthwise_conv.cuh", "totals[c] += out[p][c];", "totals[c] += to_float(to_storage<T>(out[p][c]));"),
    Mutant("columns beyond the map pooled", "depthwise_conv.cuh", "              store(to, packs[p]);\n#pragma unroll\n              for (int c = 0; c < kChannels; c++) totals[c] += out[p][c];\n            }", "              store(to, packs[p]);\n            }\n            for (int c = 0; c < kChannels; c++) totals[c] += out[p][c];"),
    Mutant("missing wait for a stage of rows", "depthwise_conv.cuh", "ptx::cp_async_wait<kStages - 2>();", ""),
    Mutant("missing barrier before the sums of a block", "depthwise_conv.cuh", "pack<float>(totals));\n    ptx::sync_threads();", "pack<float>(totals));"),
    Mutant("gates by the first block", "depthwise_conv_gate.cuh", "load<int>(ticket) == blocks - 1", "load<int>(ticket) == 0 * blocks"),
    Mutant("mean over the tiles", "depthwise_conv_gate.cuh", "mean * tail.inverse_count", "mean * (tail.inverse_count / tiles)"),
    Mutant("right edge wraps into the next line", "depthwise_conv_general.cuh", "ix >= args.width", "ix > args.width"),
    Mutant("gate of the first image", "matrix.cuh", "args_.gate + static_cast<int64_t>(image) * args_.k + k", "args_.gate + static_cast<int64_t>(image) * 0 + k"),
    Mutant("gate not rounded", "matrix_fma.cuh", "to_float(to_storage<T>(x[i][v] * gate[v]))", "x[i][v] * gate[v]"),
    Mutant("bias dropped", "matrix.cuh", "args_.bias && column < args_.columns", "args_.bias && column < 0"),
    Mutant("bias in every part of a split sum", "matrix.cuh", "if (warp_split_ != 0) {\n#pragma unroll\n        for (int v", "if (warp_split_ < 0) {\n#pragma unroll\n        for (int v"),
    Mutant("end of the sum dropped", "matrix.cuh", "(args_.k - piece * kPiece + 15) / 16", "(args_.k - piece * kPiece) / 16"),
    Mutant("missing zeros behind the sum", "matrix.cuh", "return columns_left >= 0;", "return columns_left > 0;"),
    Mutant("late wait for a piece", "matrix.cuh", "ptx::cp_async_wait<Traits::kStages - 2>();", "ptx::cp_async_wait<Traits::kStages - 1>();"),
    Mutant("missing barrier before a piece", "matrix.cuh", "ptx::sync_threads();  // this piece", "// this piece"),
    Mutant("missing wait for the launch before", "matrix.cuh", "ptx::grid_dependency_wait();", ""),
    Mutant("residual twice", "matrix.cuh", "value(sums, i, j, v) += other[v];", "value(sums, i, j, v) += 2 * other[v];"),
    Mutant("residual before the activation", "pointwise_conv.cuh", "    activate_all<Traits::kSilu, T>(args.activation, sums);\n    if (args.matrix.residual) loop.add_residual(residual, sums);", "    if (args.matrix.residual) loop.add_residual(residual, sums);\n    activate_all<Traits::kSilu, T>(args.activation, sums);"),
    Mutant("last row tile", "pointwise_conv.cuh", "(args.row_tiles - worker + args.workers - 1) / args.workers", "(args.row_tiles - worker - 1) / args.workers"),
    Mutant("missing barrier between two steps", "matrix_fma.cuh", "      ptx::sync_threads();\n      if (k + Traits::kDepth", "      if (k + Traits::kDepth"),
    Mutant("rows beyond the image pooled", "head_pool.cuh", "if (8 * i + loop.thread_row() >= rows.count) continue;", "if (8 * i + loop.thread_row() >= kGroupRows) continue;"),
    Mutant("padding of the stem is raw zero", "stem_conv.cuh", "value.words[0] &= inside ? keep : 0;", "value.words[0] &= inside ? keep : keep;"),
    Mutant("pixels not rounded", "stem_conv.cuh", "to_float(to_storage<T>(normalise(pixel_value(load<Pixel>(pixels_of_image + at)))))", "normalise(pixel_value(load<Pixel>(pixels_of_image + at)))"),
    Mutant("mean of a tile", "squeeze_excite_gate.cuh", "mean[v] *= args.inverse_count;", "mean[v] *= args.inverse_count * args.tiles;"),
    Mutant("missing wait for the weights of the gates", "squeeze_excite_gate.cuh", "ptx::cp_async_wait<0>();", ""),
)  # fmt: skip
