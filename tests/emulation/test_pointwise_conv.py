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
RESIDENT = ("resident64x128", "resident128x64")
STAGED = (
    "staged128x256", "staged256x128", "staged128x128", "staged128x64", "staged64x64", "split16x32",
    "split16x16",
)  # fmt: skip
TILES = RESIDENT + STAGED
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
LOW = DTYPES[:2]
SHARED_BYTES = {"sm_80": 164 << 10, "sm_90": 228 << 10}
MULTIPROCESSORS = {"sm_80": 108, "sm_90": 132}


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


def launched(n: int, c: int, o: int, h: int, gated: bool, chip: str = "sm_90") -> tuple[str, int, int]:
    """Tile, blocks and shared memory of a block of a 16-bit call on an H200, or an A100; nothing is run."""
    tile, launch = torch.empty(1, dtype=torch.int32), torch.empty(4, dtype=torch.int64)
    emulate(
        "pointwise_conv_tile", {}, {"tile": tile, "launch": launch},
        source=EMULATION / "bind_pointwise_conv.cpp", n=n, pixels=h * h, c=c, o=o, gated=int(gated),
        multiprocessors=MULTIPROCESSORS[chip], shared_bytes=SHARED_BYTES[chip],
    )  # fmt: skip
    launches, blocks, _, shared_bytes = launch.tolist()
    assert launches == 1
    return ("fma", "rows", *TILES)[tile], blocks, shared_bytes


def chosen(*shape, **options) -> str:
    return launched(*shape, **options)[0]


@pytest.mark.parametrize(
    ("n", "c", "o", "h", "gated", "tile"),
    [
        # B0 at batch 256: the wide maps are streamed past resident weights.
        (256, 32, 16, 112, True, "resident128x64"),
        (256, 16, 96, 112, False, "resident64x128"),
        (256, 144, 40, 28, True, "resident128x64"),
        (256, 112, 672, 14, False, "resident64x128"),
        # Long sums by wide outputs read weights and rows again and again: the largest tiles.
        (256, 1152, 320, 7, True, "staged128x256"),
        (32, 1344, 384, 19, True, "staged128x256"),
        # A short one hides its epilogue behind a second block.
        (256, 192, 1152, 7, False, "staged128x128"),
        # One image: 49 rows are four groups of 16, and the sums are split among warps.
        (1, 1152, 320, 7, True, "split16x16"),
        (1, 112, 672, 14, False, "split16x32"),
        # A large image is enough for streaming at batch 1.
        (1, 32, 192, 300, False, "resident64x128"),
    ],
)
def test_choice_of_tile(n, c, o, h, gated, tile) -> None:
    assert chosen(n, c, o, h, gated) == tile


# The late layers of B4 (380 x 380) and B7 (600 x 600), from stage 4 on: input, output, map, gated.
LATE = {
    "efficientnet_b4": [
        (960, 272, 12, True), (272, 1632, 12, False), (1632, 272, 12, True), (1632, 448, 12, True),
        (448, 2688, 12, False), (2688, 448, 12, True),
    ],
    "efficientnet_b7": [
        (1344, 384, 19, True), (384, 2304, 19, False), (2304, 384, 19, True), (2304, 640, 19, True),
        (640, 3840, 19, False), (3840, 640, 19, True),
    ],
}  # fmt: skip


@pytest.mark.parametrize("chip", SHARED_BYTES)
@pytest.mark.parametrize("model", LATE)
def test_late_layers_of_a_large_batch_take_the_largest_tiles(model, chip) -> None:
    for c, o, h, gated in LATE[model]:
        tile, blocks, shared_bytes = launched(256, c, o, h, gated, chip)
        assert tile in ("staged128x256", "staged256x128"), (c, o)
        # One block a multiprocessor, all of them at work but for the few that even out narrow columns.
        assert 0.97 * MULTIPROCESSORS[chip] <= blocks <= MULTIPROCESSORS[chip], (c, o, blocks)
        assert shared_bytes <= SHARED_BYTES[chip] - 1024


def test_the_largest_tiles_are_for_long_sums() -> None:
    # An epilogue that nothing hides is most of the time of a short sum.
    assert chosen(256, 160, 960, 24, False) == "staged128x128"
    # An A100 has no room for two blocks of four such warps, and one hides nothing: it takes eight warps.
    assert chosen(256, 160, 960, 24, False, "sm_80") == "staged128x256"


def test_chips_with_little_shared_memory_have_a_tile() -> None:
    for c, o, h, gated in LATE["efficientnet_b7"]:
        for n in (1, 256):
            tile, launch = torch.empty(1, dtype=torch.int32), torch.empty(4, dtype=torch.int64)
            emulate(
                "pointwise_conv_tile", {}, {"tile": tile, "launch": launch},
                source=EMULATION / "bind_pointwise_conv.cpp", n=n, pixels=h * h, c=c, o=o,
                gated=int(gated), multiprocessors=128, shared_bytes=100 << 10,
            )  # fmt: skip
            assert 0 < launch[3] <= 99 << 10


def test_weights_that_do_not_fit_twice_are_not_resident() -> None:
    # 64 columns of 240 values are 32 KiB beside a ring of 49: two blocks fit an H100's multiprocessor and
    # not an A100's.
    assert chosen(256, 240, 40, 28, True, "sm_90") == "resident128x64"
    assert chosen(256, 240, 40, 28, True, "sm_80").startswith("staged")


def test_blocks_share_row_tiles_evenly() -> None:
    # 3 images of 18 groups are 27 row tiles of 128; three blocks fit the multiprocessor, and take 9 each.
    args = arguments(3, 32, 16, 33, 33, dtype=torch.float16, **PROJECTION)
    y, blocks = emulated(args, multiprocessors=1)
    assert blocks == 3
    Expectation.of(OP, args).assert_within(y)
    # One image of 7 x 7 and 136 columns: four groups of 16 rows, and a block for every 16 columns of each.
    args = arguments(1, 192, 136, 7, 7, dtype=torch.float16, **EXPANSION)
    y, blocks = emulated(args)
    assert blocks == 4 * 9
    Expectation.of(OP, args).assert_within(y)


@pytest.mark.parametrize(("tile", "columns"), [("staged128x256", 272), ("staged256x128", 136)])
def test_blocks_share_narrow_tiles_evenly(tile, columns) -> None:
    # Two columns of tiles, of which the second is narrow, for two blocks at once: each would have tiles of
    # one column. So one block takes all in turn.
    args = arguments(3, 72, columns, 19, 19, dtype=torch.float16, **PROJECTION)
    y, blocks = emulated(args, tile=tile, multiprocessors=2)
    assert blocks == 1
    Expectation.of(OP, args).assert_within(y)
    # Of 3 blocks none has the same column twice running.
    y, blocks = emulated(args, tile=tile, multiprocessors=3)
    assert blocks == 3
    Expectation.of(OP, args).assert_within(y)


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("tile", ["staged128x256", "staged256x128"])
@pytest.mark.parametrize("columns", [8, 64, 72, 136, 200, 264])
def test_large_tiles_with_few_columns(columns, tile, dtype) -> None:
    # Warps beyond the columns are idle, and which they are differs between the halves of a block.
    for without in ((), ("gate", "residual")):
        args = arguments(2, 136, columns, 11, 13, dtype=dtype, exact=True, activation="relu", without=without)
        Expectation.of(OP, args).assert_exact(run(args, tile=tile, multiprocessors=1))


@pytest.mark.parametrize("rows", [1, 2, 7, 8, 9, 32])
def test_few_rows_of_float32(rows) -> None:
    # Sums of one load of a lane, of less, of more than a step of 1024, and none that divides evenly.
    for c in (4, 128, 1028, 2560):
        for without in (("gate",), ("gate", "residual", "bias")):
            args = arguments(rows, c, 10, 1, 1, dtype=torch.float32, activation="hardswish", without=without)
            args[1] = args[1] * 8
            y, blocks = emulated(args)
            assert blocks == 3 * (1 if rows == 1 else -(-rows // 8))
            Expectation.of(OP, args).assert_within(y)


def test_what_is_no_handful_of_rows_takes_tiles() -> None:
    for n, c, without in ((33, 8, ("gate",)), (2, 6, ("gate",)), (2, 8, ())):
        args = arguments(n, c, 10, 1, 1, dtype=torch.float32, activation="identity", without=without)
        y, blocks = emulated(args)
        # A gate keeps images apart: a block each.
        assert blocks == (1 if without else 2)
        Expectation.of(OP, args).assert_within(y)
