"""Faults put into the sources of the CPU kernels, one at a time."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

FOLDER = "csrc/cpu"

MUTANTS = (
    Mutant("halo", "depthwise_conv.h", "row.first_tap = std::max<int64_t>(-origin, 0);", "row.first_tap = std::max<int64_t>(1 - origin, 0);"),
    Mutant("last row", "depthwise_conv.h", "std::min((block + 1) * block_rows, out_h); oy++", "std::min((block + 1) * block_rows, out_h - 1); oy++"),
    Mutant("padding swapped", "depthwise_conv.h", "row_floats + g.left * Vec::kWidth, vector_floats});", "row_floats + g.top * Vec::kWidth, vector_floats});"),
    Mutant("stride phase", "depthwise_conv.h", "i % kStride == 0 &&", "i % kStride == kStride - 1 &&"),
    Mutant("rest of a row not computed", "depthwise_conv.h", "if (split.rest_tile) rest_tile(row, split.whole, out_w, to, sums);", "if (split.rest_tile && !split.whole) rest_tile(row, split.whole, out_w, to, sums);"),
    Mutant("pool after rounding", "depthwise_conv.h", "part = add(part, out[i]);\n          store(to + i * r.y_stride, out[i]);", "store(to + i * r.y_stride, out[i]);\n          part = add(part, load(to + i * r.y_stride));"),
    Mutant("pool counts the padding", "depthwise_conv.h", "if (i >= end - ox) break;", "if (i >= end - ox) { part = add(part, out[i]); continue; }"),
    Mutant("pool misses an image's last tile", "depthwise_conv.h", "col == 0 ? sums[c / Vec::kWidth]", "col == 0 && (block == 0 || n == 0) ? sums[c / Vec::kWidth]"),
    Mutant("stale ring row between images", "depthwise_conv.h", "int64_t next = 0;  // input row to be filled in", "static thread_local int64_t next = 0;"),
    Mutant("channel tail", "depthwise_conv.h", "load_n(x + c, static_cast<int>(channels - c)));", "load_n(x + c, static_cast<int>(channels - c) - 1));"),
    Mutant("expansion of the padding", "depthwise_conv.h", "std::fill_n(pixels, g.left * Vec::kWidth, 0.0f);", "std::fill_n(pixels, g.left * Vec::kWidth, bias[first_vector * Vec::kWidth]);"),
    Mutant("bias dropped", "matrix.h", "const Vec b = load(bias + j * Vec::kWidth);", "const Vec b = mul(load(bias + j * Vec::kWidth), set1(0.0f));"),
    Mutant("last product dropped", "matrix.h", "for (int64_t k = 0; k < length; k +=", "for (int64_t k = 0; k + (length > 8) < length; k +="),
    Mutant("residual twice", "output_tile.h", "add(sum[i][j], whole ? load(from) : load_n(from, lanes));", "add(sum[i][j], whole ? mul(set1(2.0f), load(from)) : load_n(from, lanes));"),
    Mutant("half the residual before the activation", "output_tile.h", "  if constexpr (kFinish == Finish::kOther) {\n", "  if constexpr (kFinish == Finish::kOther) {\n    if (t.residual && t.lanes == Vec::kWidth) for (int i = 0; i < kRows * kVectors; i++) { Vec& s = sum[i / kVectors][i % kVectors]; s = add(s, mul(set1(0.5f), load(t.residual + i / kVectors * t.columns + i % kVectors * Vec::kWidth))); }\n"),
    Mutant("earlier sums lost", "output_tile.h", "add_to ? add(s, load(earlier + i * Vec::kWidth)) : s", "s"),
    Mutant("last sums twice", "output_tile.h", "s = add(s, load(earlier + i * Vec::kWidth));", "s = add(add(s, s), load(earlier + i * Vec::kWidth));"),
    Mutant("gate of the first image", "pointwise_conv.h", "a.gate + i / a.pixels * depth", "a.gate + 0 * i"),
    Mutant("last row tile", "pointwise_conv.h", "last = (stop - group * tiles) * rows / tiles;", "last = (stop - group * tiles) * rows / tiles - (stop == groups * tiles);"),
    Mutant("sums kept between images", "head_pool.h", "std::fill_n(sums, sum_floats, 0.0f);", "if (item == begin) std::fill_n(sums, sum_floats, 0.0f);"),
    Mutant("mean of a rounded count", "head_pool.h", "1.0f / static_cast<float>(a.pixels)", "1.0f / static_cast<float>(a.pixels + 1)"),
    Mutant("padding of the stem is not zero", "conv.h", "std::memset(padded, 0, g.left * step * sizeof(Element));", "for (int64_t i = 0; i < g.left * step; i++) padded[i] = from_float<Element>(a.mean ? -a.mean[0] * a.inverse_std[0] : 1.0f);"),
    Mutant("row of the next block", "conv.h", "const int64_t origin = oy * g.stride - g.top;", "const int64_t origin = oy * g.stride - g.top + (oy >= kConvRowBlock && g.stride == 2);"),
    Mutant("mean of another channel", "conv.h", "mean[lane] = -a.mean[lane % 3];", "mean[lane] = -a.mean[lane / Vec::kWidth];"),
    Mutant("expanded rows of the first image", "expand_depthwise.h", "x + (n * g.h + iy) * g.w * depth", "x + (0 * n + iy) * g.w * depth"),
    Mutant("first tile only", "squeeze_excite_gate.h", "t < se.tiles; t++", "t < std::min<int64_t>(se.tiles, 1); t++"),
    Mutant("odd squeeze channel", "squeeze_excite_gate.h", "if (s < squeeze) out[j] =", "if (s + 1 < squeeze) out[j] ="),
    Mutant("block: sums of the first image", "mbconv.h", "group.sums + i * blocks * channels,", "group.sums + 0 * i,"),
    Mutant("block: filtered image of the one before", "mbconv.h", "const Storage* image = x + (group.first + i)", "const Storage* image = x + (group.first + (i ? i - 1 : 0))"),
    Mutant("block: gate of the neighbouring channel", "mbconv.h", "const Vec gate = load(gates + i * channels + origin + c);", "const Vec gate = load(gates + i * channels + (origin ? origin - 1 : 0) + c);"),
    Mutant("block: not scaled where the map is small", "mbconv.h", "if (a.squeeze_excite && !shape.gate_weights) {", "if (a.squeeze_excite && !shape.gate_weights && pixels > 64) {"),
    Mutant("block: weights not scaled", "mbconv.h", "weight = gated;", "weight = project.weight;"),
    Mutant("block: residual of the first image", "mbconv.h", "static_cast<const Storage*>(a.x) + at", "static_cast<const Storage*>(a.x) + 0 * at"),
    Mutant("block: a thread's last rows", "mbconv.h", "std::clamp<int64_t>((end - before) / vectors, 0, rows);", "std::clamp<int64_t>((end - before) / vectors, 0, rows) - (end < project.vectors * rows && end > before && end < before + vectors * rows);"),
    Mutant("block: images left over", "mbconv.h", "for (int64_t n = by_thread; n < g.n; n += group)", "for (int64_t n = by_thread; n < by_thread; n += group)"),
    Mutant("block: tail of the expanded channels", "mbconv.h", "std::min(width, depth - origin), width}", "std::min(width, depth - origin - (depth % Vec::kWidth != 0)), width}"),
    Mutant("fused block: rows of the image before", "fused_mbconv.h", "if (task.image != n) task.next = 0;", "if (task.image < 0) task.next = 0;"),
    Mutant("fused block: first part of every row", "fused_mbconv.h", "{row + column * g.stride * g.c, g.kernel * g.c,", "{row + 0 * column, g.kernel * g.c,"),
    Mutant("fused block: padding from the ring", "fused_mbconv.h", "iy < 0 || iy >= g.h ? task.zeros", "iy < 0 ? task.zeros"),
    Mutant("fused block: rows of a tile share memory", "fused_mbconv.h", "task.expanded + r * width * expand.columns", "task.expanded + (r ? r - 1 : 0) * width * expand.columns"),
    Mutant("fused block: residual of the first image", "fused_mbconv.h", "static_cast<const Storage*>(a.x) + at", "static_cast<const Storage*>(a.x) + at % (g.h * g.w * g.c)"),
    Mutant("fused block: a ring that is a row short", "fused_mbconv_shape.h", "ring_rows((rows - 1) * g.stride + g.kernel)", "ring_rows((rows - 1) * g.stride + g.kernel - (g.kernel > 1))"),
)  # fmt: skip

# Of the products of bfloat16 by a matrix unit, which the other instruction sets do not have.
UNIT_MUTANTS = (
    Mutant("unit: last terms dropped", "matrix_unit.h", "if (k < piece.length) {", "if (k + 8 < piece.length) {"),
    Mutant("unit: weights of the piece before", "matrix_unit.h", "panel += (piece.length - k) / 2 * sizeof...(kVector) * Vec::kWidth;", ""),
    Mutant("unit: bias of the first vector", "matrix_unit.h", "bias + kVector * Vec::kWidth, 0)", "bias, 0)"),
    Mutant("unit: shaped for other rows", "matrix_unit.h", "if (rows == rows_ && rest == rest_) return;", "if (rows_ && rest == rest_) return;"),
    Mutant("unit: last tile a row too early", "matrix_unit.h", "std::min(tile * height, rows - height);", "std::max<int64_t>(std::min(tile * height, rows - height) - (tile > 1), 0);"),
    Mutant("unit: residual of whole vectors only", "matrix_unit.h", "if (residual) v = add(", "if (residual && whole) v = add("),
    Mutant("unit: last row not activated", "expand_depthwise.h", "activate_ring<bfloat16>(tile, tiles.height,", "activate_ring<bfloat16>(tile, tiles.height - 1,"),
    Mutant("unit: pixels pooled twice", "head_pool.h", "vectors, row - first, tiles.height,", "vectors, 0, tiles.height,"),
)  # fmt: skip
