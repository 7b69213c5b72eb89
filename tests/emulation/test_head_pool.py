"""The CUDA kernels of head_pool, emulated, against the reference in float64."""

from __future__ import annotations

import pytest
import torch

from effnet_fast.ops.device_weights import arrange
from effnet_fast.ops.schemas import ACTIVATIONS, OPERATORS
from effnet_fast.testing import Expectation, make_args
from tests.emulation.build import EMULATION
from tests.emulation.emulator import emulate

OP = "head_pool"
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
TILES = ("staged128x256", "staged128x128", "staged128x64", "split64x32", "split64x16")
SHARED_BYTES = {"sm_80": 164 << 10, "sm_90": 228 << 10}


def emulated(args: list, seed: int = 0, tile: str = "auto") -> tuple[torch.Tensor, int]:
    """The result of a call and the number of its blocks."""
    x, weight, bias, activation = args
    n, c, h, w = x.shape
    packed_weight, packed_bias = arrange(OPERATORS[OP], [weight, bias], activation)
    y = torch.empty(n, weight.shape[0])
    blocks = emulate(
        OP, {"x": x, "weight": packed_weight, "bias": packed_bias}, {"y": y}, seed,
        n=n, pixels=h * w, c=c, o=weight.shape[0], activation=activation, dtype=x.dtype, tile=tile,
        multiprocessors=132, shared_bytes=SHARED_BYTES["sm_90"],
    )  # fmt: skip
    return y, blocks


def run(args: list, **options) -> torch.Tensor:
    return emulated(args, **options)[0]


def arguments(n: int, c: int, o: int, h: int, w: int, **others) -> list:
    return make_args(OP, n=n, c=c, o=o, h=h, w=w, **others)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize(("c", "o"), [(8, 24), (136, 72), (24, 136), (27, 10)])
def test_result_is_within_budget(c, o, tile, dtype) -> None:
    for n, h, w in ((3, 7, 7), (1, 1, 1), (0, 7, 7), (2, 13, 13), (1, 57, 3)):
        args = arguments(n, c, o, h, w, dtype=dtype)
        Expectation.of(OP, args).assert_within(run(args, tile=tile))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("without", [(), ("bias",)], ids=["bias", "no bias"])
def test_activations(activation, without, dtype) -> None:
    args = arguments(3, 24, 40, 7, 7, dtype=dtype, activation=activation, without=without)
    args[1] = args[1] * 8  # reach the ends of every activation
    Expectation.of(OP, args).assert_within(run(args))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tile", TILES)
def test_exact_on_integers(tile, dtype) -> None:
    for c, h in ((72, 8), (40, 16), (27, 4)):  # powers of two: the mean is exact too
        args = arguments(3, c, 40, h, h, dtype=dtype, exact=True, activation="relu")
        Expectation.of(OP, args).assert_exact(run(args, tile=tile))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tile", TILES)
def test_order_of_blocks_and_threads_does_not_matter(tile, dtype) -> None:
    args = arguments(3, 40, 72, 13, 13, dtype=dtype)
    first = run(args, tile=tile, seed=1)
    for seed in (2, 3):
        assert torch.equal(run(args, tile=tile, seed=seed), first)


@pytest.mark.parametrize(
    ("tile", "blocks"),
    [
        ("staged128x256", 2), ("staged128x128", 2 * 2), ("staged128x64", 2 * 3), ("split64x32", 3 * 5),
        ("split64x16", 3 * 9),
    ],
)  # fmt: skip
def test_two_images_share_a_large_tile(tile, blocks) -> None:
    args = arguments(3, 24, 136, 7, 7, dtype=torch.float16)
    assert emulated(args, tile=tile)[1] == blocks


def launched(n: int, c: int, o: int, chip: str = "sm_90") -> tuple[str, int]:
    """Tile and blocks of a 16-bit call on a GPU with 132 multiprocessors; nothing is run."""
    tile, launch = torch.empty(1, dtype=torch.int32), torch.empty(4, dtype=torch.int64)
    emulate(
        "head_pool_tile", {}, {"tile": tile, "launch": launch}, source=EMULATION / "bind_head_pool.cpp",
        n=n, c=c, o=o, multiprocessors=132, shared_bytes=SHARED_BYTES[chip],
    )  # fmt: skip
    return TILES[tile], int(launch[1])


@pytest.mark.parametrize("chip", SHARED_BYTES)
def test_choice_of_tile(chip) -> None:
    # B0: one image is few blocks with long sums, so they are as narrow as they get.
    assert launched(1, 320, 1280, chip) == ("split64x16", 80)
    # 256 images read the weights again and again.
    assert launched(256, 320, 1280, chip) == ("staged128x256", 128 * 5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tile", TILES)
def test_nan_stays_in_its_image(tile, dtype) -> None:
    args = arguments(3, 24, 40, 7, 7, dtype=dtype, activation="relu6")
    args[0][1, 3, 2, 2] = torch.nan
    y = run(args, tile=tile)
    assert y[1].isnan().all()
    assert y[[0, 2]].isfinite().all()


def test_unaligned_map_takes_the_scalar_path() -> None:
    args = arguments(2, 16, 24, 5, 5, dtype=torch.float16)
    expected = Expectation.of(OP, args)
    memory = torch.empty(args[0].numel() + 1, dtype=torch.float16)
    args[0] = memory[1:].view(2, 5, 5, 16).permute(0, 3, 1, 2).copy_(args[0])
    expected.assert_within(run(args))
