"""The CUDA kernels of stem_block_sums and stem_block, emulated, against the reference in float64."""

from __future__ import annotations

import pytest
import torch

from effnet_fast.ops.cuda_packing import stem_block_sections
from effnet_fast.ops.geometry import conv_output_size, pool_tiles
from effnet_fast.ops.schemas import ACTIVATIONS, OPERATORS
from effnet_fast.testing import LAYOUTS, Expectation, make_args
from tests.emulation.build import EMULATION
from tests.emulation.emulator import emulate

OPS = ["stem_block_sums", "stem_block"]
SIXTEEN_BITS = [torch.float16, torch.bfloat16]
SYMMETRIC, SAME = (1, 1, 1, 1), (0, 0, 1, 1)


def run(op: str, args: list, seed: int = 0) -> torch.Tensor:
    """What the kernels make of `args`, in the order of the schema; in float32 those of the parts."""
    row = OPERATORS[op]
    given = dict(zip([parameter.name for parameter in row.parameters], args, strict=True))
    image, stride, dtype = given["image"], given["stride"], given["dtype"]
    top, left, bottom, right = given["padding"]
    (n, c, h, w), (channels, _, kernel, _) = image.shape, given["w_stem"].shape
    out_h = conv_output_size(h, kernel, stride, top, bottom)
    out_w = conv_output_size(w, kernel, stride, left, right)
    arrays = ("w_stem", "b_stem", "w_filter", "b_filter", "w_project", "b_project")
    packed = stem_block_sections([given[name] for name in row.weights], given["activation"])
    if op == "stem_block":
        out_channels = given["w_project"].shape[0]
        y = torch.empty(n, out_channels, out_h, out_w, dtype=dtype).to(memory_format=torch.channels_last)
        outputs = {"y": y}
    else:
        out_channels, outputs = 0, {"sums": torch.empty(n, pool_tiles(out_h, out_w), channels)}
    # Exactly the memory between the first and the last pixel: nothing else may be read.
    length = 1 + sum((size - 1) * step for size, step in zip(image.shape, image.stride(), strict=True))
    inputs = {name: given.get(name) for name in ("mean", "std", "gate")}
    inputs |= {
        "image": image.as_strided((length if n else 0,), (1,)),
        **dict(zip(arrays, packed, strict=False)),
    }
    strides = {f"image_stride{i}": value for i, value in enumerate(image.stride())}
    emulate(
        "stem_block", inputs, outputs, seed,
        n=n, c=c, h=h, w=w, kernel=kernel, stride=stride, top=top, left=left, bottom=bottom, right=right,
        channels=channels, filter=given["w_dw"].shape[2], out_channels=out_channels,
        activation=given["activation"], **strides, image_dtype=image.dtype, dtype=dtype,
    )  # fmt: skip
    (result,) = outputs.values()
    return result


def stem_block(op: str, **options) -> list:
    """What every EfficientNet begins with, on a map of one tile and a part."""
    sizes = dict(n=1, c=3, h=37, w=15, k=3, m=16, o=8, stride=2, padding=SYMMETRIC)
    return make_args(op, **{**sizes, **options})


def check(op: str, **options) -> None:
    args = stem_block(op, **options)
    Expectation.of(op, args).assert_within(run(op, args))


@pytest.mark.parametrize("dtype", SIXTEEN_BITS)
@pytest.mark.parametrize("m", [8, 24, 32, 40, 48, 56, 64, 72])
@pytest.mark.parametrize("op", OPS)
def test_channels_of_b0_to_b7(op, m, dtype) -> None:
    check(op, m=m, h=21, w=9, dtype=dtype)


@pytest.mark.parametrize("dtype", SIXTEEN_BITS)
@pytest.mark.parametrize("o", [8, 16, 24, 32, 40, 48])
def test_out_channels(o, dtype) -> None:
    check("stem_block", o=o, dtype=dtype)


@pytest.mark.parametrize("dtype", SIXTEEN_BITS)
@pytest.mark.parametrize("padding", [SYMMETRIC, SAME, (1, 0, 0, 2), (0, 0, 0, 0), (2, 2, 2, 2), (0, 5, 3, 0)])
@pytest.mark.parametrize("op", OPS)
def test_padding(op, padding, dtype) -> None:
    check(op, padding=padding, h=34, w=13, dtype=dtype)


@pytest.mark.parametrize("dtype", SIXTEEN_BITS)
@pytest.mark.parametrize("size", [(1, 1), (3, 71), (71, 3), (32, 32), (33, 34)])
@pytest.mark.parametrize("op", OPS)
def test_sizes(op, size, dtype) -> None:
    h, w = size
    check(op, h=h, w=w, m=8, dtype=dtype)


@pytest.mark.parametrize("dtype", SIXTEEN_BITS)
@pytest.mark.parametrize("n", [0, 2])
@pytest.mark.parametrize("op", OPS)
def test_batches(op, n, dtype) -> None:
    check(op, n=n, dtype=dtype)


@pytest.mark.parametrize("dtype", SIXTEEN_BITS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("image_dtype", [torch.uint8, torch.float32, "storage"])
def test_images(image_dtype, layout, dtype) -> None:
    image_dtype = dtype if image_dtype == "storage" else image_dtype
    for op in OPS:
        check(op, n=2, h=9, w=11, m=8, layout=layout, image_dtype=image_dtype, dtype=dtype)


@pytest.mark.parametrize("dtype", SIXTEEN_BITS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("op", OPS)
def test_activations(op, activation, dtype) -> None:
    args = stem_block(op, activation=activation, dtype=dtype)
    args[1], args[3] = args[1] * 4, args[3] * 4  # reach the ends of every activation
    Expectation.of(op, args).assert_within(run(op, args))


@pytest.mark.parametrize(
    "without", [("mean", "std"), ("mean",), ("std",), ("b_stem", "b_dw"), ("gate",), ("b_project",)]
)
def test_absent_tensors(without) -> None:
    for op in OPS:
        check(op, without=without, dtype=torch.float16)


@pytest.mark.parametrize("padding", [SYMMETRIC, SAME])
@pytest.mark.parametrize("op", OPS)
def test_exact(op, padding) -> None:
    """Integers: their sums are below 2048, which float16 has all of, and gates are small ones."""
    args = stem_block(
        op, n=2, padding=padding, activation="relu", exact=True, without=("mean", "std"), dtype=torch.float16
    )
    Expectation.of(op, args).assert_exact(run(op, args))


@pytest.mark.parametrize("op", OPS)
def test_order_of_blocks_and_threads_does_not_matter(op) -> None:
    args = stem_block(op, n=2, m=40, dtype=torch.bfloat16)
    assert torch.equal(run(op, args, seed=1), run(op, args, seed=2))


def test_what_lies_outside_the_map_is_no_input_of_the_filter() -> None:
    """A stem without weights is its activated bias everywhere but where the filter is padded: that is 0."""
    options = dict(h=8, w=8, m=8, activation="relu", without=("mean", "std"))
    args = stem_block("stem_block_sums", dtype=torch.float16, **options)
    args[1], args[2] = torch.zeros_like(args[1]), torch.ones(8)
    args[3], args[4] = torch.ones_like(args[3]), None
    # Of 4 x 4 pixels of 1, the corners see 4, the edges 6, and the four in the middle 9.
    assert torch.equal(run("stem_block_sums", args), torch.full((1, 1, 8), 4 * 4.0 + 8 * 6 + 4 * 9))


@pytest.mark.parametrize("dtype", SIXTEEN_BITS)
def test_nan_stays_under_its_taps(dtype) -> None:
    args = stem_block(
        "stem_block", h=31, w=31, m=8, image_dtype=torch.float32, activation="relu6", dtype=dtype
    )
    for y, x in ((14, 14), (15, 17)):
        image = args[0].clone()
        image[0, 1, y, x] = torch.nan
        rows, columns = torch.arange(16)[:, None], torch.arange(16)
        stem = ((2 * rows - y).abs() <= 1) & ((2 * columns - x).abs() <= 1)
        under = torch.nn.functional.max_pool2d(stem[None].float(), 3, 1, 1)[0].bool()
        result = run("stem_block", [image, *args[1:]]).isnan()[0]
        assert torch.equal(result.all(0), under)
        assert torch.equal(result.any(0), under)


def test_float32_takes_the_kernels_of_the_parts() -> None:
    for op in OPS:
        check(op, n=2, m=20, k=5, d=5, o=5, stride=1, h=9, w=9, padding=(2, 2, 2, 2))


FUSED = dict(n=1, c=3, h=9, w=9, kernel=3, stride=2, top=1, left=1, bottom=1, right=1, channels=32, filter=3,
             out_channels=16, dtype=torch.float16)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "fused"),
    [
        ({}, True),
        ({"dtype": torch.bfloat16, "channels": 72, "out_channels": 48}, True),
        ({"out_channels": 0}, True),
        ({"dtype": torch.float32}, False),
        ({"channels": 20}, False),
        ({"channels": 80}, False),
        ({"out_channels": 12}, False),
        ({"out_channels": 56}, False),
        ({"c": 1}, False),
        ({"stride": 1}, False),
        ({"kernel": 5}, False),
        ({"filter": 5}, False),
    ],
    ids=str,
)
def test_what_one_kernel_makes(change, fused) -> None:
    answer = torch.full((), -1, dtype=torch.int32)
    source = EMULATION / "bind_stem_block.cpp"
    emulate("stem_block_is_fused", {}, {"fused": answer}, source=source, **{**FUSED, **change})
    assert bool(answer) == fused
