"""Blocks of the operators that are matrix products: every way of cutting a problem gives the same result.

The heuristic gives small problems one block. Here blocks are small, so that a problem of a few pixels has
what a real layer has: several tiles of rows and of columns, the last ones half empty, several steps of depth.
"""

from __future__ import annotations

import pytest
import torch

from effnet_fast.testing import LOW_DTYPES, Expectation, Target, make_args
from effnet_fast.triton_kernels import configs, pointwise_conv, stem_conv
from effnet_fast.triton_kernels.device import ARCHITECTURES, INTERPRETER

UNPACKED, PACKED = Target("triton"), Target("triton", packed=True)
EVEN, STRIDED = (1, 1, 1, 1), (0, 1, 2, 1)

#: Operator, configuration, arguments of `make_args`.
CASES = {
    "pointwise, loop": (
        "pointwise_conv",
        configs.pointwise_conv.Config(16, 16, 16, 1, 2, 3),
        dict(n=2, c=40, o=24, h=5, w=5),
    ),
    "pointwise, one image's end in the middle of a tile": (
        "pointwise_conv",
        configs.pointwise_conv.Config(16, 32, 32, 1, 2, 1),
        dict(n=3, c=27, o=27, h=3, w=7, without=("gate",)),
    ),
    "pointwise, sweep with a gate": (
        "pointwise_conv",
        configs.pointwise_conv.Config(16, 16, 32, 2, 2, 1),
        dict(n=2, c=24, o=72, h=3, w=7),
    ),
    "pointwise, sweep without": (
        "pointwise_conv",
        configs.pointwise_conv.Config(32, 16, 16, 3, 2, 2),
        dict(n=1, c=13, o=56, h=5, w=7, without=("gate", "residual")),
    ),
    "dense": (
        "dense_conv",
        configs.dense_conv.Config(16, 16, 16, 2, 3),
        dict(n=1, c=24, o=24, h=5, w=7, k=3, padding=EVEN),
    ),
    "dense, stride 2, no residual": (
        "dense_conv",
        configs.dense_conv.Config(16, 16, 32, 2, 3),
        dict(n=2, c=27, o=24, h=9, w=11, k=3, stride=2, padding=STRIDED, without=("residual",)),
    ),
    "stem": (
        "stem_conv",
        configs.stem_conv.Config(2, 8, 16, 16, 2, 1),
        dict(n=2, c=3, o=24, h=9, w=21, k=3, stride=2, padding=STRIDED, image_dtype=torch.float32),
    ),
    "stem, many channels": (
        "stem_conv",
        configs.stem_conv.Config(4, 4, 16, 16, 2, 1),
        dict(n=1, c=13, o=16, h=7, w=6, k=3, padding=EVEN, image_dtype=torch.float32, layout="contiguous"),
    ),
    "head, two images of 15 pixels": (
        "head_pool",
        configs.head_pool.Config(2, 16, 16, 16, 2, 3),
        dict(n=3, c=40, o=24, h=3, w=5),
    ),
    "head, one image of 63 pixels": (
        "head_pool",
        configs.head_pool.Config(1, 16, 16, 32, 2, 3),
        dict(n=2, c=40, o=24, h=9, w=7),
    ),
    "head, two images of 35 pixels": (
        "head_pool",
        configs.head_pool.Config(2, 16, 16, 32, 2, 3),
        dict(n=3, c=27, o=17, h=5, w=7),
    ),
}  # fmt: skip


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request, monkeypatch):
    """Operator and arguments of one case, whose configuration is what kernels are given."""
    operator, config, arguments = request.param
    asked = []
    monkeypatch.setattr(configs, "choose", lambda problem, device: asked.append(problem) or config)
    yield operator, arguments
    assert {problem.operator for problem in asked} == {operator}


def test_small_blocks_are_within_the_budget(case, poisoned_outputs):
    operator, arguments = case
    args = make_args(operator, dtype=torch.float16, **arguments)
    Expectation.of(operator, args).assert_within(UNPACKED.run(operator, args))


@pytest.mark.parametrize("dtype", LOW_DTYPES, ids=str)
def test_small_blocks_are_exact_on_integers(case, dtype, poisoned_outputs):
    operator, arguments = case
    if operator == "stem_conv":
        arguments = {**arguments, "without": ("mean", "std")}
    args = make_args(operator, dtype=dtype, exact=True, activation="relu", **arguments)
    Expectation.of(operator, args).assert_exact(PACKED.run(operator, args))


def test_wide_offsets_give_the_bits_of_narrow_ones(monkeypatch):
    args = make_args("stem_conv", dtype=torch.float16, n=2, c=3, o=16, h=9, w=9, stride=2)
    narrow = UNPACKED.run("stem_conv", args)
    monkeypatch.setattr(stem_conv, "_extent", lambda *_: 2**31)
    assert torch.equal(UNPACKED.run("stem_conv", args), narrow)


def test_bfloat16_results_are_rounded_to_even_and_not_cut_off(poisoned_outputs):
    """Sums that need nine bits, halfway between two bfloat16 values."""
    sums = torch.tensor([257.0, 259.0, -343.0, 341.0, 511.0, 1.0, 0.0, 1e30])
    x = torch.ones(1, 1, 1, 1, dtype=torch.bfloat16)
    args = [x, x.expand(8, 1, 1, 1), sums - 1, "identity", None, None]
    y = UNPACKED.run("pointwise_conv", args)
    assert torch.equal(y.flatten().cpu(), sums.to(torch.bfloat16))


@pytest.mark.parametrize(
    ("strides", "wide"),
    [
        ((3 * 2**20, 1, 3 * 2**10, 3), False),
        ((3 * 2**20, 2**20, 2**10, 1), False),
        # A view into a larger image: 1024 lines, 2**21 apart.
        ((2**33, 1, 2**21, 3), True),
        # Planes of a batch that is stored channel by channel.
        ((2**20, 2**30, 2**10, 1), True),
    ],
)
def test_offsets_inside_an_image_are_wide_where_they_pass_32_bits(strides, wide):
    image = torch.empty_strided((2, 3, 1024, 1024), strides, dtype=torch.uint8, device="meta")
    weights = [
        torch.empty(32, 3, 3, 3, dtype=torch.float16, device="meta"),
        torch.empty(32, device="meta"),
    ]
    y = torch.empty(2, 32, 512, 512, dtype=torch.float16, device="meta")
    (launch,) = stem_conv.launches(
        ARCHITECTURES[90], [y], image, weights, 32, 3, 2, EVEN, "silu", None, None, torch.float16
    )
    assert launch.constants["WIDE"] is wide


def test_without_a_gate_tiles_cross_images():
    """7 x 7 pixels leave a tile of 64 rows a quarter empty, of 128 more than half."""

    def programs(gated: bool) -> int:
        x = torch.empty(256, 192, 7, 7, dtype=torch.float16, device="meta")
        y = torch.empty(256, 1152, 7, 7, dtype=torch.float16, device="meta")
        weights = [torch.empty(1152, 192, dtype=x.dtype, device="meta"), torch.empty(1152, device="meta")]
        gate = torch.empty(256, 192, device="meta") if gated else None
        (launch,) = pointwise_conv.launches(ARCHITECTURES[90], [y], x, weights, 1152, "silu", gate, None)
        return launch.programs * launch.constants["ROWS"] * launch.constants["COLUMNS"]

    assert programs(False) < 1.05 * 256 * 49 * 1152
    assert 1.25 * 256 * 49 * 1152 < programs(True) < 1.35 * 256 * 49 * 1152


@pytest.mark.parametrize("device", [ARCHITECTURES[80], ARCHITECTURES[120], INTERPRETER], ids=str)
@pytest.mark.parametrize("itemsize", [2, 4])
@pytest.mark.parametrize(("rows", "channels", "outputs"), [(49, 232, 232), (3136, 24, 24), (784, 64, 256)])
def test_candidates_of_dense_convolutions(device, itemsize, rows, channels, outputs):
    """No layer of the family is one, so that nothing else asks for these."""
    problem = configs.dense_conv.Problem(32, rows, 9, channels, outputs, itemsize, False)
    found = configs.dense_conv.candidates(problem, device)
    assert found[0] == configs.dense_conv.heuristic(problem, device)
    assert 8 <= len(set(found)) == len(found) <= 24
