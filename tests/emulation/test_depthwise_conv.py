"""The CUDA kernels of depthwise_conv, its sums and its gates, emulated, against the reference in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from effnet_fast.ops.device_weights import arrange
from effnet_fast.ops.geometry import conv_output_size, pool_tiles
from effnet_fast.ops.schemas import ACTIVATIONS, GATES, OPERATORS
from effnet_fast.testing import LOW_DTYPES, Expectation, make_args
from tests.emulation.build import EMULATION
from tests.emulation.emulator import emulate

CONV, POOL, GATE = "depthwise_conv", "depthwise_conv_pool", "depthwise_conv_gate"
SIXTEEN_BITS = [torch.float16, torch.bfloat16]
# One multiprocessor: blocks as large as they get, several images each. A GPU's: the smallest ones.
FEW, MANY = 1, 132


def run(op: str, args: list, seed: int = 0, multiprocessors: int = FEW) -> Tensor | tuple[Tensor, Tensor]:
    x, weight, bias, stride, padding, activation, *squeeze_excite = args
    top, left, bottom, right = padding
    n, c, h, w = x.shape
    kernel = weight.shape[2]
    out_h = conv_output_size(h, kernel, stride, top, bottom)
    out_w = conv_output_size(w, kernel, stride, left, right)
    matrix, bias = arrange(OPERATORS[CONV], [weight, bias], activation)
    inputs = {"x": x, "weight": matrix, "bias": bias}
    outputs = {"y": torch.empty(n, c, out_h, out_w, dtype=x.dtype).to(memory_format=torch.channels_last)}
    parameters = dict(
        n=n, c=c, h=h, w=w, kernel=kernel, stride=stride, top=top, left=left, bottom=bottom, right=right,
        multiprocessors=multiprocessors, activation=activation, dtype=x.dtype,
    )  # fmt: skip
    if op == POOL:
        outputs["sums"] = torch.empty(n, pool_tiles(out_h, out_w), c)
    if op == GATE:
        w1, b1, w2, b2, se_activation, gate = squeeze_excite
        inputs |= {"w1": w1.flatten(1), "b1": b1, "w2": w2.flatten(1), "b2": b2}
        outputs["gates"] = torch.empty(n, c)
        parameters |= dict(s=w1.shape[0], se_activation=se_activation, gate=gate)
    emulate(
        GATE if op == GATE else CONV, inputs, outputs, seed, EMULATION / "bind_depthwise_conv.cpp",
        **parameters,
    )  # fmt: skip
    return tuple(outputs.values()) if len(outputs) > 1 else outputs["y"]


def check(op: str, multiprocessors: int = FEW, **options) -> None:
    args = make_args(op, **{**dict(n=1, c=24, h=13, w=13), **options})
    Expectation.of(op, args).assert_within(run(op, args, multiprocessors=multiprocessors))


@pytest.mark.parametrize("dtype", LOW_DTYPES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("k", [3, 5, 7])
def test_kernels(k, stride, dtype) -> None:
    check(POOL, n=3, k=k, stride=stride, dtype=dtype)
    check(POOL, n=2, h=7, w=18, k=k, stride=stride, dtype=dtype, activation="relu6", multiprocessors=MANY)


@pytest.mark.parametrize("dtype", SIXTEEN_BITS)
@pytest.mark.parametrize("c", [8, 40, 48, 72, 136])
def test_channels(c, dtype) -> None:
    for multiprocessors in (FEW, MANY):
        check(POOL, c=c, h=5, w=9, k=3, dtype=dtype, multiprocessors=multiprocessors)
        check(POOL, c=c, h=5, w=9, k=5, dtype=dtype, multiprocessors=multiprocessors)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("size", [(1, 1), (1, 57), (57, 1), (7, 7), (2, 31), (57, 57)])
def test_sizes(size, k, stride) -> None:
    h, w = size
    for multiprocessors in (FEW, MANY):
        check(POOL, c=8, h=h, w=w, k=k, stride=stride, dtype=torch.float16, multiprocessors=multiprocessors)


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    "padding", [(0, 0, 1, 1), (1, 0, 0, 2), (0, 0, 0, 0), (2, 2, 2, 2), (1, 9, 1, 9), (6, 0, 0, 7)]
)
def test_padding(padding, stride, k) -> None:
    for h in (12, 13):
        check(POOL, n=2, c=8, h=h, w=h + 1, k=k, stride=stride, padding=padding, dtype=torch.float16)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", LOW_DTYPES)
@pytest.mark.parametrize("c", [8, 27])
def test_activations(c, dtype, activation) -> None:
    args = make_args(CONV, n=1, c=c, h=7, w=7, dtype=dtype, activation=activation)
    args[1] = args[1] * 8  # reach the ends of every activation
    Expectation.of(CONV, args).assert_within(run(CONV, args))


@pytest.mark.parametrize("dtype", LOW_DTYPES)
@pytest.mark.parametrize(
    "shape",
    [
        dict(c=27),
        dict(c=24, k=1),
        dict(c=40, k=9, h=20),
        dict(c=8, stride=3, h=40, w=17),
        dict(c=8, padding=(3, 0, 4, 1)),
    ],
)
def test_general_kernel(shape, dtype) -> None:
    check(POOL, dtype=dtype, **shape)
    check(POOL, dtype=dtype, activation="hardswish", **shape)


def test_unaligned_tensors_take_the_general_kernel() -> None:
    args = make_args(CONV, n=1, c=8, h=7, w=7, dtype=torch.float16, layout="offset")
    memory = args[0].permute(0, 2, 3, 1)
    assert memory.data_ptr() % 16 != 0
    Expectation.of(CONV, args).assert_within(run(CONV, args))


@pytest.mark.parametrize("op", [CONV, POOL, GATE])
@pytest.mark.parametrize("c", [24, 27])
def test_batch_of_none(c, op) -> None:
    check(op, n=0, c=c, dtype=torch.float16)


@pytest.mark.parametrize("dtype", LOW_DTYPES)
@pytest.mark.parametrize("k", [3, 5, 7])
def test_integers_are_exact(k, dtype) -> None:
    for stride in (1, 2):
        args = make_args(
            POOL, n=2, c=24, h=9, w=11, k=k, stride=stride, dtype=dtype, activation="relu", exact=True
        )
        expected = Expectation.of(POOL, args)
        expected.assert_exact(run(POOL, args))
        expected.assert_exact(run(POOL, args, multiprocessors=MANY))


def test_images_of_a_block_do_not_change_the_result() -> None:
    args = make_args(POOL, n=40, c=8, h=7, w=7, k=5, dtype=torch.float16)
    for together, apart in zip(run(POOL, args), run(POOL, args, multiprocessors=MANY), strict=True):
        assert torch.equal(together, apart)


@pytest.mark.parametrize("op", [POOL, GATE])
def test_order_of_blocks_and_threads_does_not_matter(op) -> None:
    args = make_args(op, n=2, c=72, h=20, w=20, k=5, dtype=torch.bfloat16)
    first = run(op, args, seed=1, multiprocessors=MANY)
    for seed in (2, 3):
        for a, b in zip(run(op, args, seed=seed, multiprocessors=MANY), first, strict=True):
            assert torch.equal(a, b)


def test_nan_stays_in_its_windows() -> None:
    args = make_args(POOL, n=3, c=24, h=7, w=7, dtype=torch.float16, activation="relu6")
    args[0][1, 5, 0, 3] = torch.nan
    y, sums = run(POOL, args)
    expected = torch.zeros_like(y, dtype=torch.bool)
    expected[1, 5, :2, 2:5] = True
    assert torch.equal(y.isnan(), expected)
    assert sums.isnan().nonzero().tolist() == [[1, 0, 5]]


@pytest.mark.parametrize("dtype", LOW_DTYPES)
@pytest.mark.parametrize(
    "shape", [dict(c=24, s=6), dict(c=27, s=5), dict(c=8, s=1, h=20, w=33, k=5), dict(c=72, s=3)]
)
def test_gates(shape, dtype) -> None:
    for multiprocessors in (FEW, MANY):
        check(GATE, n=3, dtype=dtype, multiprocessors=multiprocessors, **shape)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("se_activation", ["silu", "relu", "hardswish"])
def test_activations_of_gates(se_activation, gate) -> None:
    check(GATE, h=7, w=7, dtype=torch.float16, se_activation=se_activation, gate=gate)
    check(GATE, h=7, w=7, dtype=torch.float16, gate=gate, without=("b1", "b2"))


@pytest.mark.parametrize("sums", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("k", [3, 5])
def test_segments_and_strips_of_a_large_map(k, stride, sums) -> None:
    # 75 columns of outputs are three strips with an idle end, and 35 rows up to 9 segments.
    shape = dict(c=16, h=35 * stride, w=75 * stride, k=k, stride=stride, dtype=torch.float16)
    for multiprocessors in (FEW, 4, MANY):
        check(POOL if sums else CONV, multiprocessors=multiprocessors, **shape)


def test_large_squeeze_excite_has_launches_of_its_own() -> None:
    # 2 x 480 x 20 x 4 bytes of weights, more than the 64 KiB that one block still reads.
    check(GATE, n=2, c=480, s=20, h=4, w=4, k=3, dtype=torch.float16)
