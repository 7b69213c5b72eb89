"""Faults put into the sources of the CPU kernels, one at a time."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

FOLDER = "csrc/cpu"

MUTANTS = (
    Mutant("halo", "depthwise_conv.h", "std::max<int64_t>(-origin, 0),", "std::max<int64_t>(1 - origin, 0),"),
    Mutant("last row", "depthwise_conv.h", "std::min((block + 1) * kPoolTile, out_h); oy++", "std::min((block + 1) * kPoolTile, out_h - 1); oy++"),
    Mutant("padding swapped", "depthwise_conv.h", "row_floats + g.left * pixel_floats, ring", "row_floats + g.top * pixel_floats, ring"),
    Mutant("stride phase", "depthwise_conv.h", "i % kStride == 0 &&", "i % kStride == kStride - 1 &&"),
    Mutant("pool after rounding", "depthwise_conv.h", "total = add(total, v);", "Storage* at = y + (ox + i) * r.channels; store_n(at, v, r.lanes); total = add(total, load_n(at, r.lanes));"),
    Mutant("pool misses an image's last tile", "depthwise_conv.h", "col == 0 ? sums[v]", "col == 0 && (block == 0 || n == 0) ? sums[v]"),
    Mutant("stale ring row between images", "depthwise_conv.h", "int64_t next = 0;  // input row to be filled in", "static thread_local int64_t next = 0;"),
    Mutant("channel tail", "depthwise_conv.h", "if (c < channels) store(pixels + c, load_n(row + c, static_cast<int>(channels - c)));", "if (c < channels) store(pixels + c, load_n(row + c, static_cast<int>(channels - c) - 1));"),
    Mutant("bias dropped", "matrix.h", "const Vec b = load(bias + j * kWidth);", "const Vec b = mul(load(bias + j * kWidth), set1(0.0f));"),
    Mutant("last product dropped", "matrix.h", "for (int64_t k = 0; k < rows.length; k +=", "for (int64_t k = 0; k + (rows.length > 8) < rows.length; k +="),
    Mutant("residual twice", "matrix.h", "if (residual) v = add(v, load(residual + i * row_stride + column));", "if (residual) v = add(v, mul(set1(2.0f), load(residual + i * row_stride + column)));"),
    Mutant("half the residual before the activation", "matrix.h", "Vec v = activate<kActivation, Storage>(load(tile + (i * vectors + j) * Vec::kWidth));", "Vec v = load(tile + (i * vectors + j) * Vec::kWidth); if (residual && columns - column >= Vec::kWidth) v = add(v, mul(set1(0.5f), load(residual + i * row_stride + column))); v = activate<kActivation, Storage>(v);"),
    Mutant("gate of the first image", "pointwise_conv.h", "a.gate + row / a.pixels * depth", "a.gate + 0 * row"),
    Mutant("last row tile", "pointwise_conv.h", "for (int64_t item = begin; item < end; item++)", "for (int64_t item = begin; item < end - (item + 1 == groups * tiles); item++)"),
    Mutant("sums kept between images", "head_pool.h", "std::fill_n(sums, sum_floats, 0.0f);", "if (item == begin) std::fill_n(sums, sum_floats, 0.0f);"),
    Mutant("mean of a rounded count", "head_pool.h", "1.0f / static_cast<float>(a.pixels)", "1.0f / static_cast<float>(a.pixels + 1)"),
    Mutant("padding of the stem is raw zero", "conv.h", "std::fill_n(padded, g.left * g.c, 0.0f);", "std::fill_n(padded, g.left * g.c, a.mean ? -a.mean[0] * a.inverse_std[0] : 0.0f);"),
    Mutant("row of the next block", "conv.h", "const int64_t origin = oy * g.stride - g.top;", "const int64_t origin = oy * g.stride - g.top + (oy >= kConvRowBlock && g.stride == 2);"),
    Mutant("expansion of the padding", "depthwise_conv.h", "std::fill_n(row, g.left * pixel_floats, 0.0f);", "std::fill_n(row, g.left * pixel_floats, load(bias + first_channel).v[0]);"),
    Mutant("expanded rows of the first image", "expand_depthwise.h", "x + ((n * g.h + iy) * g.w + first) * depth", "x + ((n * 0 + iy) * g.w + first) * depth"),
    Mutant("first tile only", "squeeze_excite_gate.h", "t < a.tiles; t++", "t < std::min<int64_t>(a.tiles, 1); t++"),
    Mutant("odd squeeze channel", "squeeze_excite_gate.h", "if (s < squeeze) even =", "if (s + 1 < squeeze) even ="),
)  # fmt: skip
