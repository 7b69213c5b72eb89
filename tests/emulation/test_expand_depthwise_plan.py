"""The tiles that calls of the fused CUDA kernel of expand_depthwise are given: pure functions of shapes."""

from __future__ import annotations

import functools

import pytest
import torch

from effnet_fast.inference import fold, network_layers
from effnet_fast.inference.block_forms import BlockForm
from effnet_fast.models import create_model, model_config
from effnet_fast.ops.geometry import conv_output_size, pool_tiles
from tests.emulation.test_expand_depthwise import SHARED_BYTES, VARIANTS, plan

#: Of a block, beside what CUDA takes for itself of a multiprocessor's.
BLOCK_BYTES = {chip: bytes_ - 1024 for chip, bytes_ in SHARED_BYTES.items()}
MULTIPROCESSORS = {"sm_80": 108, "sm_86": 84, "sm_90": 132}


@functools.cache
def layers(name: str) -> tuple:
    """(input channels, expanded channels, height and width, kernel, stride, padding), each layer once."""
    with torch.device("meta"):
        model = create_model(name).eval()
    size = model_config(name).resolution
    network = network_layers(fold(model), (size, size), forms=BlockForm.EXPANSION_FUSED)
    fused = [layer for layer in network if layer.operator.startswith("expand_depthwise")]
    shapes = (
        (layer.x.shape[0], layer.y.shape[0], layer.x.shape[1:], layer.kernel, layer.stride, layer.padding)
        for layer in fused
    )
    return tuple(dict.fromkeys(shapes))


def plan_of(layer: tuple, chip: str, n: int, **options) -> dict[str, float]:
    c, m, size, kernel, stride, padding = layer
    return plan(
        c, m, size, kernel, stride, n=n, padding=padding, chip=chip, multiprocessors=MULTIPROCESSORS[chip],
        **options,
    )  # fmt: skip


@pytest.mark.parametrize("chip", SHARED_BYTES)
@pytest.mark.parametrize("name", [f"efficientnet_b{i}" for i in range(8)])
def test_tiles_fit_the_chip(name, chip) -> None:
    for layer in layers(name):
        chosen = plan_of(layer, chip, 64)
        if chosen["variant"] < 0:
            # 128 input channels at the most, and the tiles of the widest layers need more than 99 KB.
            assert layer[0] > 128 or (chip == "sm_86" and layer[0] > 96), layer
            continue
        assert chosen["shared_bytes"] <= BLOCK_BYTES[chip]
        resident = chosen["resident"] * (chosen["shared_bytes"] + 1024)
        assert resident <= SHARED_BYTES[chip]


@pytest.mark.parametrize("name", [f"efficientnet_b{i}" for i in range(8)])
def test_two_blocks_share_a_multiprocessor_up_to_56_channels(name) -> None:
    for layer in layers(name):
        if layer[0] <= 56:
            assert plan_of(layer, "sm_90", 256)["resident"] >= 2, layer


def test_every_kernel_is_chosen_by_some_layer() -> None:
    """One that no layer of the family takes is dead weight in the library."""
    chosen = {
        int(plan_of(layer, chip, n)["variant"])
        for name in (f"efficientnet_b{i}" for i in range(8))
        for layer in layers(name)
        for chip in SHARED_BYTES
        for n in (1, 32, 256)
    }
    assert chosen - {-1} == set(range(len(VARIANTS)))


def test_no_row_of_sums_has_two_blocks() -> None:
    for name in ("efficientnet_b0", "efficientnet_b4"):
        for layer in layers(name):
            _, _, (height, width), kernel, stride, (top, left, bottom, right) = layer
            rows = pool_tiles(
                conv_output_size(height, kernel, stride, top, bottom),
                conv_output_size(width, kernel, stride, left, right),
            )
            assert plan_of(layer, "sm_90", 256)["blocks"] <= rows


def test_a_small_batch_is_divided_by_channels() -> None:
    """One image of 14 x 14 is one tile: as many blocks as it has chunks."""
    one, many = (plan(80, 480, (14, 14), 3, 1, n=n) for n in (1, 4096))
    assert one["blocks"] == many["blocks"] == 1
    assert one["block_chunks"] == 1
    assert many["block_chunks"] * many["chunk"] >= 480


def test_more_images_take_no_less_time_and_more_multiprocessors_no_more() -> None:
    for layer in layers("efficientnet_b0"):
        cycles = [plan_of(layer, "sm_90", n)["cycles"] for n in (1, 2, 8, 32, 256)]
        assert cycles == sorted(cycles)
    for few, many in ((8, 16), (66, 132)):
        slow, fast = (plan(24, 144, (56, 56), 3, 1, multiprocessors=count)["cycles"] for count in (few, many))
        assert fast < slow


def test_halos_count() -> None:
    """Of two tiles of one kernel the one that expands more pixels for an output takes longer."""
    variant = VARIANTS.index((3, 1, 48, 7))
    large, small = (plan(24, 144, (56, 56), 3, 1, tiles=(variant, 1, columns)) for columns in (28, 4))
    assert small["cycles"] > large["cycles"]


@pytest.mark.parametrize(
    "changed",
    [dict(c=12), dict(c=136), dict(m=20), dict(kernel=7), dict(stride=3), dict(expand_activation="relu")],
    ids=str,
)
def test_calls_without_a_kernel(changed) -> None:
    call = dict(c=16, m=96, size=(14, 14), kernel=3, stride=1) | changed
    assert plan(**call)["variant"] == -1
