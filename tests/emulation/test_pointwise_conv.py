"""The CUDA kernels of pointwise_conv, emulated, against the reference in float64."""

from __future__ import annotations

import pytest
import torch

from effnet_fast.ops.device_weights import arrange
from effnet_fast.ops.schemas import ACTIVATIONS, OPERATORS
from effnet_fast.testing import Expectation, make_args
from tests.emulation.build import EMULATION
from tests.emulation.emulator import emulate

OP = "pointwise_conv"
TILES = ("resident64x128", "resident128x64", "staged128x128", "staged128x64", "split64x32")
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
LOW = DTYPES[:2]
SHARED_BYTES = {"sm_80": 164 << 10, "sm_90": 228 << 10}


def emulated(args: list, seed: int = 0, tile: str = "auto", multiprocessors: int = 132, chip: str = "sm_90"):
    """The result of a call and the number of its blocks."""
    x, weight, bias, activation, gate, residual = args
    n, c, h, w = x.shape
    o = weight.shape[0]
    packed_weight, packed_bias = arrange(OPERATORS[OP], [weight, bias], activation)
    y = torch.empty(n, o, h, w, dtype=x.dtype).to(memory_format=torch.channels_last)
    blocks = emulate(
        OP,
        {"x": x, "weight": packed_weight, "bias": packed_bias, "gate": gate, "residual": residual},
        {"y": y}, seed, n=n, pixels=h * w, c=c, o=o, activation=activation, dtype=x.dtype, tile=tile,
        multiprocessors=multiprocessors, shared_bytes=SHARED_BYTES[chip],
    )  # fmt: skip
    return y, blocks


def run(args: list, **options) -> torch.Tensor:
    return emulated(args, **options)[0]


def arguments(n: int, c: int, o: int, h: int, w: int, **others) -> list:
    return make_args(OP, n=n, c=c, o=o, h=h, w=w, **others)


PROJECTION = {"activation": "identity"}  # with gate and residual, which make_args gives
EXPANSION = {"activation": "silu", "without": ("gate", "residual")}


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("kind", [PROJECTION, EXPANSION], ids=["projection", "expansion"])
def test_tiles_within_budget(tile, kind, dtype) -> None:
    # 8 and 24 are no multiples of 16, 136 is none of a tile; on one multiprocessor a block walks over
    # several row tiles.
    for c, o, h, w in ((8, 136, 13, 13), (24, 8, 7, 7), (136, 24, 1, 1), (72, 40, 57, 5)):
        args = arguments(3, c, o, h, w, dtype=dtype, **kind)
        Expectation.of(OP, args).assert_within(run(args, tile=tile, multiprocessors=1))


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("tile", TILES)
def test_tiles_are_exact_on_integers(tile, dtype) -> None:
    for without in ((), ("gate",), ("residual",), ("gate", "residual", "bias")):
        args = arguments(2, 200, 72, 9, 9, dtype=dtype, exact=True, activation="relu", without=without)
        Expectation.of(OP, args).assert_exact(run(args, tile=tile, multiprocessors=1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("c", "o"), [(8, 24), (27, 30), (136, 8), (20, 68)])
def test_any_channels_within_budget(c, o, dtype) -> None:
    for n, h, w in ((3, 7, 7), (1, 1, 1), (0, 13, 13), (1, 57, 3)):
        args = arguments(n, c, o, h, w, dtype=dtype, **PROJECTION)
        Expectation.of(OP, args).assert_within(run(args))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("without", [(), ("gate",), ("residual", "bias")], ids=["all", "ungated", "gated"])
def test_activations(activation, without, dtype) -> None:
    args = arguments(2, 24, 40, 7, 9, dtype=dtype, activation=activation, without=without)
    args[1] = args[1] * 8  # reach the ends of every activation
    Expectation.of(OP, args).assert_within(run(args))


@pytest.mark.parametrize(
    ("tile", "dtype", "expected"),
    [
        *((tile, dtype, 0) for tile in (*TILES, "fma") for dtype in LOW),
        ("fma", torch.float32, 2**-12),
    ],
)
def test_gated_values_are_rounded_to_storage(tile, dtype, expected) -> None:
    # In 16 bits a gate of 1 + 2**-12 leaves 1 what it is, and the difference of two ones is none.
    args = arguments(1, 8, 8, 3, 3, dtype=dtype, activation="identity", without=("bias", "residual"))
    x, weight, _, _, gate, _ = args
    x.fill_(1)
    weight.zero_()
    weight[:, 0], weight[:, 1] = 1, -1
    gate.fill_(1)
    gate[:, 0] += 2**-12
    assert (run(args, tile=tile) == expected).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_without_tensor_cores(dtype) -> None:
    for c in (8, 27, 40):
        args = arguments(2, c, 12, 9, 9, dtype=dtype, exact=True, activation="relu")
        Expectation.of(OP, args).assert_exact(run(args, tile="fma"))


@pytest.mark.parametrize("tile", [*TILES, "fma"])
def test_order_of_blocks_and_threads_does_not_matter(tile) -> None:
    args = arguments(3, 72, 72, 13, 13, dtype=torch.float16, **PROJECTION)
    first = run(args, tile=tile, multiprocessors=1, seed=1)
    for seed in (2, 3):
        assert torch.equal(run(args, tile=tile, multiprocessors=1, seed=seed), first)


@pytest.mark.parametrize("tile", [*TILES, "fma"])
def test_nan_stays_in_its_image(tile) -> None:
    args = arguments(3, 24, 40, 7, 7, dtype=torch.bfloat16, activation="relu6")
    args[0][1, 3, 2, 2] = torch.nan
    y = run(args, tile=tile)
    assert y[1, :, 2, 2].isnan().all()
    y[1, :, 2, 2] = 0
    assert y.isfinite().all()


@pytest.mark.parametrize("name", ["x", "residual"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_unaligned_maps_take_the_scalar_path(name, dtype) -> None:
    args = arguments(2, 16, 24, 5, 5, dtype=dtype, **PROJECTION)
    place = {"x": 0, "residual": 5}[name]
    offset = arguments(2, 16, 24, 5, 5, dtype=dtype, layout="offset", **PROJECTION)[place]
    expected = Expectation.of(OP, args)
    memory = torch.empty(offset.numel() + 1, dtype=dtype)
    n, c, h, w = offset.shape
    args[place] = memory[1:].view(n, h, w, c).permute(0, 3, 1, 2).copy_(offset)
    expected.assert_within(run(args))


def chosen(n: int, c: int, o: int, h: int, gated: bool, chip: str = "sm_90") -> str:
    """The tile of a 16-bit call on a GPU with 132 multiprocessors."""
    tile = torch.empty(1, dtype=torch.int32)
    emulate(
        "pointwise_conv_tile", {}, {"tile": tile}, source=EMULATION / "bind_pointwise_conv.cpp",
        n=n, pixels=h * h, c=c, o=o, gated=int(gated), multiprocessors=132, shared_bytes=SHARED_BYTES[chip],
    )  # fmt: skip
    return ("fma", *TILES)[tile]


@pytest.mark.parametrize(
    ("n", "c", "o", "h", "gated", "tile"),
    [
        # B0 at batch 256: the wide maps are streamed past resident weights.
        (256, 32, 16, 112, True, "resident128x64"),
        (256, 16, 96, 112, False, "resident64x128"),
        (256, 144, 40, 28, True, "resident128x64"),
        (256, 112, 672, 14, False, "resident64x128"),
        # Long sums by wide outputs are bound by the tensor cores: their largest tile.
        (256, 192, 1152, 7, False, "staged128x128"),
        (32, 1344, 384, 19, True, "staged128x128"),
        # One image: 49 rows are one group, and the sums are split among warps.
        (1, 1152, 320, 7, True, "split64x32"),
        (1, 112, 672, 14, False, "split64x32"),
        # A large image is enough for streaming at batch 1.
        (1, 32, 192, 300, False, "resident64x128"),
    ],
)
def test_choice_of_tile(n, c, o, h, gated, tile) -> None:
    assert chosen(n, c, o, h, gated) == tile


def test_the_largest_tile_is_never_alone_on_a_multiprocessor() -> None:
    assert chosen(256, 192, 1152, 7, False, "sm_90") == "staged128x128"
    assert chosen(256, 192, 1152, 7, False, "sm_80") == "staged128x64"


def test_weights_that_do_not_fit_twice_are_not_resident() -> None:
    # 64 columns of 240 values are 32 KiB beside a ring of 49: two blocks fit an H100's multiprocessor and
    # not an A100's.
    assert chosen(256, 240, 40, 28, True, "sm_90") == "resident128x64"
    assert chosen(256, 240, 40, 28, True, "sm_80") == "staged128x64"


def test_blocks_share_row_tiles_evenly() -> None:
    # 3 images of 18 groups are 27 row tiles of 128; three blocks fit the multiprocessor, and take 9 each.
    args = arguments(3, 32, 16, 33, 33, dtype=torch.float16, **PROJECTION)
    y, blocks = emulated(args, multiprocessors=1)
    assert blocks == 3
    Expectation.of(OP, args).assert_within(y)
    # One image of 7 x 7 and 136 columns: a block for every 32.
    args = arguments(1, 192, 136, 7, 7, dtype=torch.float16, **EXPANSION)
    y, blocks = emulated(args)
    assert blocks == 5
    Expectation.of(OP, args).assert_within(y)
