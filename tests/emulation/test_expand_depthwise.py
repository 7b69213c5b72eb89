"""The fused CUDA kernel of expand_depthwise, and its composition, emulated, against float64."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from effnet_fast.ops.cuda_packing import expand_sections
from effnet_fast.ops.geometry import conv_output_size, pool_tiles
from effnet_fast.testing import LOW_DTYPES, Expectation, make_args
from tests.emulation.build import EMULATION
from tests.emulation.emulator import emulate

OP, POOL = "expand_depthwise", "expand_depthwise_pool"
FMA, COMPOSED = "expand_depthwise_fma", "expand_depthwise_composed"
SIXTEEN_BITS = (torch.float16, torch.bfloat16)
SHARED_BYTES = {"sm_80": 164 << 10, "sm_86": 100 << 10, "sm_90": 228 << 10}
# kExpandDepthwiseVariants (kernel, stride, channels of a chunk, rows of an item); those for any activation.
VARIANTS = (
    (3, 1, 48, 7), (3, 1, 48, 4), (3, 1, 32, 7), (3, 1, 32, 4), (3, 2, 48, 7),
    (3, 2, 48, 4), (3, 2, 32, 4), (5, 1, 16, 7), (5, 1, 16, 4), (5, 2, 32, 4),
)  # fmt: skip
ANY_ACTIVATION = ((3, 1, 48, 4), (3, 2, 48, 4), (5, 1, 16, 4), (5, 2, 32, 4))
# One multiprocessor: all channels in a block. A GPU's: a chunk or two.
FEW, MANY = 1, 132
Tiles = tuple[int, int, int] | None  # place in VARIANTS, bands, columns; None: what the call chooses
PLAN = (
    "variant", "chunk", "rows", "tile_rows", "tile_columns", "pitch", "bands", "blocks", "block_chunks",
    "shared_bytes", "resident", "cycles",
)  # fmt: skip


def parameters(op: str, args: list, multiprocessors: int, chip: str, tiles: Tiles) -> dict:
    """What the bindings ask for."""
    x, w_expand, _, expand_activation, w_dw, _, stride, (top, left, bottom, right), activation = args
    n, c, h, w = x.shape
    variant, bands, columns = tiles or (-1, 0, 0)
    return dict(
        n=n, c=c, m=w_expand.shape[0], h=h, w=w, kernel=w_dw.shape[2], stride=stride, top=top, left=left,
        bottom=bottom, right=right, pool=int(op == POOL), multiprocessors=multiprocessors,
        shared_bytes=SHARED_BYTES[chip], expand_activation=expand_activation, activation=activation,
        dtype=x.dtype, variant=variant, bands=bands, columns=columns,
    )  # fmt: skip


def emulated(
    op: str, args: list, *, by: str = OP, seed: int = 0, multiprocessors: int = FEW, chip: str = "sm_90",
    tiles: Tiles = None,
) -> tuple[Tensor | tuple[Tensor, Tensor], int]:  # fmt: skip
    """The result of a call, and the number of its blocks."""
    x, w_expand, b_expand, expand_activation, w_dw, b_dw, stride, padding, activation = args
    top, left, bottom, right = padding
    n, _, h, w = x.shape
    m, kernel = w_expand.shape[0], w_dw.shape[2]
    out_h = conv_output_size(h, kernel, stride, top, bottom)
    out_w = conv_output_size(w, kernel, stride, left, right)
    sections = expand_sections([w_expand, b_expand, w_dw, b_dw], activation, expand_activation)
    names = ("expand_weight", "expand_bias", "weight", "bias", "expand", "taps")
    inputs = {"x": x} | {
        name: part.flatten() for name, part in zip(names, sections, strict=True) if part.numel() > 0
    }
    outputs = {"y": torch.empty(n, m, out_h, out_w, dtype=x.dtype).to(memory_format=torch.channels_last)}
    if op == POOL:
        outputs["sums"] = torch.empty(n, pool_tiles(out_h, out_w), m)
    blocks = emulate(
        by, inputs, outputs, seed, EMULATION / f"bind_{by}.cpp", stmatrix=int(chip == "sm_90"),
        **parameters(op, args, multiprocessors, chip, tiles),
    )  # fmt: skip
    return (tuple(outputs.values()) if op == POOL else outputs["y"]), blocks


def run(op: str, args: list, **options) -> Tensor | tuple[Tensor, Tensor]:
    return emulated(op, args, **options)[0]


def plan(c: int, m: int, size: tuple[int, int], kernel: int, stride: int, *, n: int = 256, pool: bool = True,
         padding: tuple[int, ...] | None = None, chip: str = "sm_90", multiprocessors: int = 132,
         activation: str = "silu", expand_activation: str | None = None,
         tiles: Tiles = None) -> dict[str, float]:  # fmt: skip
    """What a call of 16-bit maps is given; variant -1: it is composed of two others."""
    top, left, bottom, right = padding or (kernel // 2,) * 4
    variant, bands, columns = tiles or (-1, 0, 0)
    chosen = torch.empty(len(PLAN), dtype=torch.float64)
    emulate(
        "expand_depthwise_plan", {}, {"plan": chosen}, source=EMULATION / "bind_expand_depthwise.cpp",
        n=n, c=c, m=m, h=size[0], w=size[1], kernel=kernel, stride=stride, top=top, left=left, bottom=bottom,
        right=right, pool=int(pool), multiprocessors=multiprocessors, shared_bytes=SHARED_BYTES[chip],
        activation=activation, expand_activation=expand_activation or activation, variant=variant,
        bands=bands, columns=columns,
    )  # fmt: skip
    return dict(zip(PLAN, chosen.tolist(), strict=True))


def arguments(op: str = POOL, **given) -> list:
    return make_args(op, **{**dict(n=1, c=16, m=56, h=9, w=11, k=3), **given})


def check(
    op: str = POOL,
    *,
    by: str = OP,
    tiles: Tiles = None,
    multiprocessors: int = FEW,
    chip: str = "sm_90",
    **shape,
):
    args = arguments(op, **shape)
    result = run(op, args, by=by, tiles=tiles, multiprocessors=multiprocessors, chip=chip)
    Expectation.of(op, args).assert_within(result)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("dtype", SIXTEEN_BITS)
def test_every_kernel(variant, dtype) -> None:
    """Odd maps of several tiles, the last of them partial; the last chunk partial too."""
    k, stride, _, rows = variant
    h, w = stride * 2 * rows + 1 + stride, stride * 11 + 3
    shape = dict(c=24, m=56, k=k, stride=stride, h=h, w=w, dtype=dtype)
    for columns in (5, 16):
        check(tiles=(VARIANTS.index(variant), 1, columns), **shape)


@pytest.mark.parametrize("c", [8, 16, 24, 40, 48, 64, 80, 112, 128])
@pytest.mark.parametrize("dtype", SIXTEEN_BITS)
def test_input_channels(c, dtype) -> None:
    """Each number of steps, with the bias in a step of its own (16 divides c) or not."""
    check(c=c, m=72, h=5, w=6, dtype=dtype)


@pytest.mark.parametrize("m", [8, 16, 48, 96, 104, 240])
@pytest.mark.parametrize("k", [3, 5])
def test_expanded_channels(m, k) -> None:
    """Six times the input, or none that a chunk divides; in a block of its own or not."""
    for multiprocessors in (FEW, MANY):
        check(m=m, k=k, h=5, w=9, dtype=torch.float16, multiprocessors=multiprocessors)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 17), (19, 2), (7, 7)])
def test_sizes(size, k, stride) -> None:
    check(h=size[0], w=size[1], k=k, stride=stride, dtype=torch.float16)


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [(0, 0, 1, 1), (1, 0, 0, 2), (0, 0, 0, 0), (2, 2, 2, 2), (6, 1, 0, 7)])
def test_padding(padding, stride, k) -> None:
    check(n=2, m=24, h=9, w=10, k=k, stride=stride, padding=padding, dtype=torch.float16)


def test_same_padding_of_an_even_map_at_stride_2() -> None:
    for k, padding in ((3, (0, 0, 1, 1)), (5, (1, 1, 2, 2))):
        for dtype in SIXTEEN_BITS:
            check(c=40, m=240, h=16, w=16, k=k, stride=2, padding=padding, dtype=dtype)


def test_tiles_as_wide_as_the_image_share_their_padding() -> None:
    for k, variant in ((3, VARIANTS.index((3, 1, 48, 4))), (5, VARIANTS.index((5, 1, 16, 4)))):
        for padding in ((k // 2,) * 4, (1, 0, 1, k - 1), (1, k - 1, 1, 0), (1, 1, 1, 2)):
            width = 13 + padding[1] + padding[3] - k + 1
            shape = dict(k=k, padding=padding, n=2, h=10, w=13, m=24, dtype=torch.float16)
            check(tiles=(variant, 1, width), **shape)
            whole = plan(16, 24, (10, 13), k, 1, padding=padding, tiles=(variant, 1, width))
            assert whole["pitch"] == 13 + max(padding[1], padding[3])


@pytest.mark.parametrize("variant", ANY_ACTIVATION, ids=str)
@pytest.mark.parametrize("activation", ["relu", "relu6", "hardswish", "identity"])
def test_other_activations(variant, activation) -> None:
    k, stride = variant[:2]
    for expand in {activation, "identity", "hardswish"}:
        args = arguments(
            m=24, k=k, stride=stride, h=6, w=7, dtype=torch.float16, activation=activation,
            expand_activation=expand,
        )  # fmt: skip
        args[4] = args[4] * 4  # reach the ends of every activation
        Expectation.of(POOL, args).assert_within(run(POOL, args))


@pytest.mark.parametrize("dtype", SIXTEEN_BITS)
@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_integers_are_exact(stride, k, dtype) -> None:
    args = arguments(
        n=2, c=24, m=56, k=k, stride=stride, h=10, w=9, dtype=dtype, exact=True, activation="relu",
        expand_activation="relu",
    )  # fmt: skip
    expected = Expectation.of(POOL, args)
    for multiprocessors in (FEW, MANY):
        expected.assert_exact(run(POOL, args, multiprocessors=multiprocessors))
    variant = next(i for i, v in enumerate(VARIANTS) if v in ANY_ACTIVATION and v[:2] == (k, stride))
    expected.assert_exact(run(POOL, args, by=FMA, tiles=(variant, 1, 5)))


@pytest.mark.parametrize("dtype", SIXTEEN_BITS)
def test_the_bias_of_the_expansion_has_all_its_bits_and_ends_at_the_image(dtype) -> None:
    """Of 1 + 2**-12 + 2**-20 fewer than three bfloat16 lose a part; around the image there is none of it."""
    args = arguments(
        OP, c=8, m=16, h=4, w=5, k=3, dtype=dtype, activation="identity", expand_activation="identity"
    )
    x, w_expand, b_expand, _, w_dw, b_dw = args[:6]
    x.fill_(-1)
    w_expand.zero_()
    w_expand[:, 0] = 1
    b_expand.fill_(1 + 2**-12 + 2**-20)
    w_dw.fill_(1)
    b_dw.zero_()
    y = run(OP, args)
    taps = torch.nn.functional.conv2d(torch.ones(1, 1, 4, 5), torch.ones(1, 1, 3, 3), padding=1)
    pixel = torch.tensor(2**-12 + 2**-20).to(dtype).float()
    assert torch.equal(y.float(), (taps * pixel).to(dtype).float().expand_as(y))


def test_a_large_bias_is_finite_in_float16() -> None:
    args = arguments(OP, c=8, m=16, h=3, w=3, dtype=torch.float16)
    args[2].fill_(-1e5)
    assert torch.isfinite(run(OP, args)).all()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("k", [3, 5])
def test_depthwise_by_multiply_adds(k, stride) -> None:
    for variant in (v for v in VARIANTS if v[:2] == (k, stride) and v[3] == 4):
        shape = dict(c=24, m=56, k=k, stride=stride, h=9 * stride, w=13 * stride, dtype=torch.bfloat16)
        check(by=FMA, tiles=(VARIANTS.index(variant), 1, 6), **shape)


def test_without_stmatrix() -> None:
    for k, stride in itertools.product((3, 5), (1, 2)):
        shape = dict(c=24, m=104, k=k, stride=stride, h=13, w=15, dtype=torch.float16)
        check(chip="sm_80", **shape)
        check(OP, chip="sm_86", **shape)


def test_a_block_with_several_tiles_has_one_row_of_sums() -> None:
    """2 x 3 tiles of a map that has one row of sums, of two images."""
    tiles = (VARIANTS.index((3, 1, 48, 4)), 1, 5)
    args = arguments(n=2, c=16, m=56, h=14, w=14, dtype=torch.float16)
    result, blocks = emulated(POOL, args, tiles=tiles)
    assert blocks == 2
    Expectation.of(POOL, args).assert_within(result)
    y, blocks = emulated(OP, args, tiles=tiles)
    assert blocks == 12
    assert torch.equal(y, result[0])


def test_rows_of_sums_without_a_block_are_zeros() -> None:
    args = arguments(c=16, m=24, h=33, w=18, k=3, dtype=torch.float16)
    _, sums = run(POOL, args, tiles=(VARIANTS.index((3, 1, 48, 7)), 2, 18))
    assert sums.shape[1] == 6
    assert (sums[:, 2:] == 0).all()
    assert sums[:, :2].abs().sum() > 0


def test_order_of_blocks_and_threads_does_not_matter() -> None:
    args = arguments(n=2, c=40, m=104, h=12, w=17, k=5, dtype=torch.bfloat16)
    first = run(POOL, args, seed=1, multiprocessors=MANY)
    for seed in (2, 3):
        for a, b in zip(run(POOL, args, seed=seed, multiprocessors=MANY), first, strict=True):
            assert torch.equal(a, b)


def test_an_image_is_the_same_in_any_batch() -> None:
    args = arguments(n=3, c=16, m=56, h=9, w=20, dtype=torch.float16)
    together = run(POOL, args)
    for image in range(3):
        x = args[0][image : image + 1].contiguous(memory_format=torch.channels_last)
        alone = run(POOL, [x, *args[1:]])
        for a, b in zip(alone, together, strict=True):
            assert torch.equal(a[0], b[image])


def test_nan_stays_in_its_windows() -> None:
    relu6 = dict(activation="relu6", expand_activation="relu6")
    args = arguments(n=2, c=16, m=24, h=7, w=9, dtype=torch.float16, **relu6)
    args[0][1, 3, 0, 4] = torch.nan
    y, sums = run(POOL, args)
    expected = torch.zeros_like(y, dtype=torch.bool)
    expected[1, :, :2, 3:6] = True
    assert torch.equal(y.isnan(), expected)
    assert not sums[0].isnan().any()


def test_batch_of_none() -> None:
    check(n=0, dtype=torch.float16)


@pytest.mark.parametrize("dtype", LOW_DTYPES)
@pytest.mark.parametrize(
    "shape",
    [
        dict(c=12, m=24),
        dict(c=16, m=20),
        dict(c=136, m=24, h=3, w=3),
        dict(m=24, k=7),
        dict(m=24, stride=3),
        dict(m=24, activation="relu"),
        dict(m=24, expand_activation="identity"),
    ],
    ids=str,
)
def test_other_calls_are_composed(shape, dtype) -> None:
    check(by=COMPOSED, n=2, dtype=dtype, **shape)


def test_unaligned_maps_are_composed() -> None:
    args = arguments(m=24, dtype=torch.float16, layout="offset")
    assert args[0].permute(0, 2, 3, 1).data_ptr() % 16 != 0
    Expectation.of(POOL, args).assert_within(run(POOL, args, by=COMPOSED))


@pytest.mark.parametrize("dtype", LOW_DTYPES)
@pytest.mark.parametrize("activations", [("silu", "silu"), ("relu", "hardswish"), ("silu", "relu")], ids=str)
def test_sections_are_as_long_as_a_call_expects(activations, dtype) -> None:
    expand, activation = activations
    layers = ((16, 96, 3), (24, 144, 5), (112, 672, 5), (8, 40, 3), (12, 24, 3), (144, 864, 3), (16, 96, 7))
    for c, m, k in layers:
        args = arguments(OP, c=c, m=m, k=k, dtype=dtype)
        sections = expand_sections([args[1], args[2], args[4], args[5]], activation, expand)
        sizes = torch.empty(6, dtype=torch.int64)
        emulate(
            "expand_depthwise_sections", {}, {"bytes": sizes}, source=EMULATION / "bind_expand_depthwise.cpp",
            c=c, m=m, kernel=k, dtype=dtype, activation=activation, expand_activation=expand,
        )  # fmt: skip
        assert [part.nbytes for part in sections] == sizes.tolist()
