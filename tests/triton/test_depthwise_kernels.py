"""Depthwise and squeeze-excite kernels where the shared tests do not look: blocks that no heuristic picks,
the slots of the sums, and how many compilations a network needs.
"""

from __future__ import annotations

import pytest
import torch

from effnet_fast.inference import fold, network_layers
from effnet_fast.models import create_model
from effnet_fast.ops.device_weights import arrange
from effnet_fast.ops.geometry import POOL_TILE
from effnet_fast.ops.reference import tile_sums
from effnet_fast.ops.schemas import OPERATORS
from effnet_fast.testing import Expectation, Target, make_args
from effnet_fast.triton_kernels import configs, depthwise_conv, squeeze_excite_gate
from effnet_fast.triton_kernels.device import ARCHITECTURES, Device
from effnet_fast.triton_kernels.launch import Launch

DEPTHWISE, GATE = configs.depthwise_conv, configs.squeeze_excite_gate
DEVICE = ARCHITECTURES[90]
SIZES = {"b0": 224, "b1": 240, "b2": 260, "b3": 300, "b4": 380, "b5": 456, "b6": 528, "b7": 600}
TRITON = Target("triton")


@pytest.mark.parametrize(("rows", "window", "taps", "kernel", "stride"), [
    (4, 1, 1, 5, 3), (16, 1, 1, 3, 2), (4, 2, 3, 3, 1), (2, 4, 3, 3, 2), (1, 2, 5, 5, 1),
])  # fmt: skip
def test_every_form_of_the_depthwise_kernel_is_exact(monkeypatch, rows, window, taps, kernel, stride):
    config = DEPTHWISE.Config(rows, 8, window, 16, taps, warps=2)
    monkeypatch.setattr(configs, "choose", lambda problem, device: config)
    args = make_args(
        "depthwise_conv_pool", exact=True, activation="relu", dtype=torch.float16, n=1, c=12,
        h=5 * stride, w=18 * stride, k=kernel, stride=stride, padding=(2, 1, 0, 2),
    )  # fmt: skip
    result = TRITON.run("depthwise_conv_pool", args)
    Expectation.of("depthwise_conv_pool", args).assert_exact(result)


@pytest.mark.parametrize(("height", "width"), [(16, 17), (17, 1)])
def test_a_slot_of_the_sums_is_the_tile_of_the_contract(height, width):
    args = make_args(
        "depthwise_conv_pool",
        exact=True,
        activation="relu",
        dtype=torch.bfloat16,
        n=2,
        c=9,
        h=height,
        w=width,
    )
    y, sums = TRITON.run("depthwise_conv_pool", args)
    # bfloat16 holds these small integers, so the stored map has the very values that were pooled.
    assert torch.equal(sums, tile_sums(y.float()))


def test_nan_reaches_only_the_outputs_under_it():
    args = make_args("depthwise_conv_pool", dtype=torch.float16, activation="relu6", c=9, h=6, w=17)
    args[0][1, 4, 5, 15] = float("nan")
    y, sums = TRITON.run("depthwise_conv_pool", args)
    expected = torch.zeros_like(y, dtype=torch.bool)
    expected[1, 4, 4:, 14:] = True
    assert torch.equal(y.isnan(), expected)
    # The second tile begins at column 16, which is under the NaN too.
    expected = torch.zeros_like(sums, dtype=torch.bool)
    expected[1, :, 4] = True
    assert torch.equal(sums.isnan(), expected)


def gate_launches(device: Device, n: int, tiles: int, channels: int, squeeze: int) -> list[Launch]:
    shapes = [(squeeze, channels), (squeeze,), (channels, squeeze), (channels,)]
    weights = [torch.empty(shape, device="meta") for shape in shapes]
    sums, gates = torch.empty(n, tiles, channels, device="meta"), torch.empty(n, channels, device="meta")
    return squeeze_excite_gate.launches(
        device, [gates], sums, 16 * tiles, weights, squeeze, "silu", "sigmoid"
    )


def depthwise_launches(device: Device, n: int, layer, dtype: torch.dtype) -> list[Launch]:
    channels, height, width = layer.x.shape
    weights = [
        torch.empty(layer.kernel**2, channels, dtype=dtype, device="meta"),
        torch.empty(channels, device="meta"),
    ]
    x = torch.empty(n, channels, height, width, dtype=dtype, device="meta")
    y = torch.empty(n, *layer.y.shape, dtype=dtype, device="meta")
    sums = torch.empty(0, device="meta")
    return depthwise_conv.launches(
        device, [y, sums], x, weights, layer.kernel, layer.stride, layer.padding, layer.activation
    )


@pytest.mark.parametrize(("n", "tiles", "expected"), [(1, 1, 2), (1, 4, 2), (1, 5, 3), (2, 1, 2), (2, 2, 3)])
def test_tiles_are_added_by_a_kernel_of_their_own_when_there_are_many(n, tiles, expected):
    assert len(gate_launches(DEVICE, n, tiles, 96, 4)) == expected


@pytest.mark.parametrize(("n", "tiles"), [(1, 4), (9, 5)])
def test_every_block_of_the_gate_is_within_the_budget(monkeypatch, n, tiles):
    args = make_args("squeeze_excite_gate", n=n, c=37, s=5, h=16, w=16 * tiles)
    expectation = Expectation.of("squeeze_excite_gate", args)
    for config in GATE.candidates(GATE.Problem(n, tiles, 37, 5), DEVICE):
        monkeypatch.setattr(configs, "choose", lambda problem, device, config=config: config)
        expectation.assert_within(TRITON.run("squeeze_excite_gate", args))


def layers_of(name: str):
    with torch.device("meta"):
        network = fold(create_model(f"efficientnet_{name}").eval())
    layers = network_layers(network, (SIZES[name],) * 2)
    return [layer for layer in layers if layer.operator.startswith("depthwise_conv")]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_the_family_needs_few_compilations(dtype):
    keys: dict[int, set] = {1: set(), 256: set()}
    for name in SIZES:
        for layer in layers_of(name):
            _, height, width = layer.y.shape
            tiles = -(-height // POOL_TILE) * -(-width // POOL_TILE)
            for n, found in keys.items():
                launches = depthwise_launches(DEVICE, n, layer, dtype)
                launches += gate_launches(DEVICE, n, tiles, layer.y.shape[0], layer.squeeze)
                found |= {(x.kernel.__name__, *x.constants.items(), x.warps, x.stages) for x in launches}
    assert len(keys[256]) <= 10
    assert len(keys[1] | keys[256]) <= 17


def test_the_tile_is_that_of_the_contract():
    assert DEPTHWISE.POOL_TILE == POOL_TILE


@pytest.mark.parametrize("name", ["b0", "b7"])
@pytest.mark.parametrize("itemsize", [2, 4])
def test_candidates_of_the_depthwise_kernel_fit_a_thread(name, itemsize):
    for layer in layers_of(name):
        channels, height, width = layer.y.shape
        problem = DEPTHWISE.Problem(
            32, height, width, channels, layer.kernel, layer.stride, itemsize, pool=True
        )
        found = DEPTHWISE.candidates(problem, DEVICE)
        assert found[0] == DEPTHWISE.heuristic(problem, DEVICE)
        assert 8 <= len(found) <= 24
        for config in found:
            assert POOL_TILE % config.columns == POOL_TILE % config.rows == 0
            assert config.columns % config.window == 0
            assert config.vector >= 1
            assert config.held(problem.kernel) <= 104


@pytest.mark.parametrize("columns", [7, 14, 19, 24])
def test_narrow_maps_waste_few_columns(columns):
    problem = DEPTHWISE.Problem(256, columns, columns, 672, 5, 1, 2, True)
    block = DEPTHWISE.heuristic(problem, DEVICE).columns
    computed = sum(-(-min(POOL_TILE, columns - x) // block) * block for x in range(0, columns, POOL_TILE))
    assert computed <= 1.3 * columns


def test_weights_in_front_of_a_silu_are_halved_for_16_bits_only():
    args = make_args("depthwise_conv", dtype=torch.float16, c=8)
    weight, bias = arrange(OPERATORS["depthwise_conv"], args[1:3], "silu")
    for dtype, halved in ((torch.float16, True), (torch.float32, False)):
        x = args[0].to(dtype)
        weights = [weight.to(dtype), bias]
        launch = depthwise_conv.launches(
            DEVICE, [torch.empty_like(x)], x, weights, 3, 1, (1, 1, 1, 1), "silu"
        )[0]
        assert launch.constants["HALVED"] is halved
        assert launch.arguments["sums_ptr"] is None
