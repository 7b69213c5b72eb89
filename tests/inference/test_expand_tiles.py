"""Tiles of the fused CUDA kernel: counted pixel by pixel, and chosen as the kernel's own header does."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
from pathlib import Path

import pytest

from effnet_fast.inference.expand_tiles import VARIANTS, Tiling, Variant, choose_tiling, tile
from effnet_fast.inference.layers import Layer
from tests.emulation.build import compiler
from tests.inference.gpu_networks import expansion

H200 = {"multiprocessors": 132, "capacity": 228 << 10}
SOURCES = Path(__file__).resolve().parents[2] / "csrc" / "cuda"

# Published predictions for B0: side, kernel, stride, channels in, variant, bands, columns; expanded pixels
# computed over pixels of the image, KiB of shared memory, blocks of a multiprocessor.
PUBLISHED = [
    (112, 3, 2, 16, Variant(3, 2, 32, 7), 1, 14, 1.12, 110, 2),
    (56, 3, 1, 24, Variant(3, 1, 48, 7), 2, 14, 1.18, 92, 2),
    (56, 5, 2, 24, Variant(5, 2, 48, 7), 1, 7, 1.37, 105, 2),
    (28, 5, 1, 40, Variant(5, 1, 16, 7), 1, 28, 1.24, 86, 2),
    (14, 3, 1, 80, Variant(3, 1, 32, 7), 1, 14, 1.22, 61, 3),
    (14, 5, 1, 112, Variant(5, 1, 16, 7), 1, 14, 1.14, 81, 2),
]


@pytest.mark.parametrize("case", PUBLISHED, ids=lambda case: f"{case[0]} k{case[1]} s{case[2]}")
def test_halo_shared_memory_and_occupancy_as_published(case):
    side, kernel, stride, channels, variant, bands, columns, halo, shared, resident = case
    layer = expansion(channels, 6 * channels, side, kernel, stride)
    tiling = tile(layer, 256, variant=variant, bands=bands, columns=columns, **H200)
    assert tiling.positions / side**2 == pytest.approx(halo, abs=0.006)
    # The published layout held the sums of two chunks; this one holds one.
    assert tiling.shared_bytes / 1024 == pytest.approx(shared, rel=0.03)
    assert tiling.resident == resident


SHAPES = [
    # side, kernel, stride, padding: symmetric, SAME at stride 2 and even sizes, none at all
    *((side, kernel, stride, None) for side in (7, 14, 19, 33, 56) for kernel in (3, 5) for stride in (1, 2)),
    (56, 3, 2, (0, 0, 1, 1)),
    (28, 5, 2, (1, 1, 2, 2)),
    (20, 3, 1, (0, 0, 0, 0)),
]


def by_pixels(layer: Layer, tiling: Tiling) -> tuple[int, int]:
    """Expanded positions in products of 16 that hold any line of the image, and outputs, tile by tile."""
    _, height, width = layer.x.shape
    _, out_height, out_width = layer.y.shape
    variant = tiling.variant
    in_rows = (tiling.tile_rows - 1) * variant.stride + variant.kernel
    in_columns = (tiling.tile_columns - 1) * variant.stride + variant.kernel
    if variant.stride == 2:
        in_columns += in_columns % 2
    elif tiling.tile_columns >= out_width:
        in_columns = width + max(layer.padding[1], layer.padding[3])
    positions = outputs = 0
    for row in range(0, out_height, tiling.tile_rows):
        for _ in range(0, out_width, tiling.tile_columns):
            lines = [row * variant.stride - layer.padding[0] + line for line in range(in_rows)]
            # Of every position the line that it is in; products that hold none of the image are left out.
            inside = [0 <= line < height for line in lines for _ in range(in_columns)]
            positions += 16 * sum(any(inside[i : i + 16]) for i in range(0, len(inside), 16))
            columns = -(-tiling.tile_columns // 8) * 8
            bands = -(-tiling.tile_rows // (2 * variant.rows))
            outputs += bands * 2 * variant.rows * columns
    return positions, outputs


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_is_computed_is_counted_pixel_by_pixel(shape):
    side, kernel, stride, padding = shape
    layer = expansion(24, 144, side, kernel, stride, padding=padding)
    found = 0
    for variant, bands, columns in itertools.product(VARIANTS, (1, 2), (7, 14, layer.y.shape[2])):
        if (variant.kernel, variant.stride) != (kernel, stride):
            continue
        tiling = tile(layer, 4, variant=variant, bands=bands, columns=columns, **H200)
        if tiling is None or tiling.tile_rows <= 2 * variant.rows * (bands - 1):
            continue  # fewer bands would do
        assert (tiling.positions, tiling.outputs) == by_pixels(layer, tiling)
        assert tiling.staged >= tiling.positions
        assert tiling.blocks <= -(-layer.y.shape[1] // 16) * -(-layer.y.shape[2] // 16)
        found += 1
    assert found >= 2


def test_no_kernel_for_odd_channels_wide_inputs_mixed_activations_and_7x7():
    made = expansion(24, 144, 28, 3, 1)
    assert choose_tiling(made, 8, **H200) is not None
    for other in (
        expansion(20, 144, 28, 3, 1),
        expansion(24, 100, 28, 3, 1),
        expansion(136, 816, 14, 5, 1),
        expansion(24, 144, 28, 7, 1),
    ):
        assert choose_tiling(other, 8, **H200) is None
    assert choose_tiling(made, 8, multiprocessors=132, capacity=8 << 10) is None  # too little shared memory


def test_other_activations_have_kernels_of_their_own():
    tiling = choose_tiling(expansion(24, 144, 28, 3, 1, activation="relu6"), 8, **H200)
    assert tiling.variant.for_any_activation


def test_repeated_blocks_share_one_choice():
    layer = expansion(24, 144, 28, 3, 1)
    again = dataclasses.replace(layer, name="another", block="another")
    assert choose_tiling(layer, 8, **H200) is choose_tiling(again, 8, **H200)


_PROGRAM = """
#include "expand_depthwise_tiles.h"
#include <iostream>
using namespace effnet_fast;
using namespace effnet_fast::cuda;
int main() {
  ExpandDepthwiseShape s{};
  ConvGeometry& g = s.geometry;
  bool silu;
  while (std::cin >> g.n >> s.in_channels >> g.c >> g.h >> g.w >> g.kernel >> g.stride >> g.top >> g.left >>
         g.bottom >> g.right >> s.sums >> silu >> s.multiprocessors >> s.multiprocessor_shared_bytes) {
    const ExpandDepthwisePlan p = choose_expand_depthwise(s, silu);
    if (p.variant < 0) {
      std::cout << "none\\n";
      continue;
    }
    const ExpandDepthwiseVariant& v = kExpandDepthwiseVariants[p.variant];
    for (int value : {v.kernel, v.stride, v.chunk, v.rows}) std::cout << value << ' ';
    for (int64_t value : {p.tile_rows, p.tile_columns, p.tiles_y * p.tiles_x, p.blocks, p.chunks,
                          p.block_chunks, p.shared_bytes})
      std::cout << value << ' ';
    std::cout << p.resident << '\\n';
  }
}
"""


def _as_numbers(layer: Layer, images: int, multiprocessors: int, capacity: int) -> str:
    channels, height, width = layer.x.shape
    numbers = (
        *(images, channels, layer.y.shape[0], height, width, layer.kernel, layer.stride, *layer.padding),
        *(int(layer.sums is not None), int(layer.activation == "silu"), multiprocessors, capacity),
    )
    return " ".join(map(str, numbers))


def test_the_kernels_header_makes_the_same_choice(tmp_path):
    source, program = tmp_path / "choose.cpp", tmp_path / "choose"
    source.write_text(_PROGRAM)
    subprocess.run([compiler()[0], "-std=c++20", "-I", SOURCES, source, "-o", program], check=True)
    widths = ((16, 96), (24, 144), (40, 240), (56, 336), (80, 480), (112, 672), (24, 200))
    layers = [
        expansion(*channels, side, kernel, stride, padding=padding, pooled=pooled, activation=activation)
        for channels in widths
        for side, kernel, stride, padding in ((95, 3, 2, None), (112, 3, 2, (0, 0, 1, 1)), *SHAPES)
        for pooled, activation in ((True, "silu"), (False, "relu6"))
    ]
    calls = [
        (layer, images, multiprocessors, capacity)
        for layer in layers
        for images in (1, 64)
        for multiprocessors, capacity in ((132, 228 << 10), (128, 100 << 10))
    ]
    lines = [_as_numbers(*call) for call in calls]
    done = subprocess.run([program], input="\n".join(lines), capture_output=True, text=True, check=True)
    answers = done.stdout.splitlines()
    assert len(answers) == len(calls)
    for (layer, *rest), answer in zip(calls, answers, strict=True):
        t = choose_tiling(layer, *rest)
        mine = "none" if t is None else " ".join(map(str, (
            t.variant.kernel, t.variant.stride, t.variant.chunk, t.variant.rows, t.tile_rows, t.tile_columns,
            t.tiles, t.blocks, t.chunks, t.block_chunks, t.shared_bytes, t.resident,
        )))  # fmt: skip
        assert mine == answer, (layer, rest)
    assert len(set(answers)) > 50
