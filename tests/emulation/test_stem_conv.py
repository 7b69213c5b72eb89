"""The CUDA kernels of stem_conv, emulated, against the reference in float64."""

from __future__ import annotations

import pytest
import torch

from effnet_fast.ops.device_weights import arrange
from effnet_fast.ops.geometry import conv_output_size
from effnet_fast.ops.schemas import ACTIVATIONS, OPERATORS
from effnet_fast.testing import LAYOUTS, LOW_DTYPES, Expectation, make_args
from tests.emulation.emulator import emulate

OP = "stem_conv"
SIXTEEN_BITS = [torch.float16, torch.bfloat16]


def run(args: list, seed: int = 0, multiprocessors: int = 1) -> torch.Tensor:
    image, weight, bias, stride, padding, activation, mean, std, dtype = args
    top, left, bottom, right = padding
    n, c, h, w = image.shape
    out_channels, kernel = weight.shape[0], weight.shape[2]
    out_h = conv_output_size(h, kernel, stride, top, bottom)
    out_w = conv_output_size(w, kernel, stride, left, right)
    y = torch.empty(n, out_channels, out_h, out_w, dtype=dtype).to(memory_format=torch.channels_last)
    matrix, bias = arrange(OPERATORS[OP], [weight, bias], activation)
    # Exactly the memory between the first and the last pixel: nothing else may be read.
    length = 1 + sum((size - 1) * stride for size, stride in zip(image.shape, image.stride(), strict=True))
    memory = image.as_strided((length if n else 0,), (1,))
    strides = {f"image_stride{i}": value for i, value in enumerate(image.stride())}
    emulate(
        OP, {"image": memory, "weight": matrix, "bias": bias, "mean": mean, "std": std}, {"y": y}, seed,
        n=n, c=c, h=h, w=w, kernel=kernel, stride=stride, top=top, left=left, bottom=bottom, right=right,
        out_channels=out_channels, multiprocessors=multiprocessors, activation=activation, **strides,
        image_dtype=image.dtype, dtype=dtype,
    )  # fmt: skip
    return y


def stem(**options) -> list:
    """What every EfficientNet begins with, small."""
    return make_args(OP, **{**dict(n=1, c=3, h=13, w=13, k=3, o=32, stride=2), **options})


def check(args: list, **options) -> None:
    Expectation.of(OP, args).assert_within(run(args, **options))


@pytest.mark.parametrize("dtype", LOW_DTYPES)
@pytest.mark.parametrize("o", [8, 24, 27, 32, 40, 136])
def test_out_channels(o, dtype) -> None:
    check(stem(o=o, dtype=dtype))


@pytest.mark.parametrize("dtype", LOW_DTYPES)
@pytest.mark.parametrize("size", [(1, 1), (7, 57), (57, 7), (34, 66), (3, 64)])
def test_sizes(size, dtype) -> None:
    h, w = size
    check(stem(h=h, w=w, o=8, dtype=dtype))


@pytest.mark.parametrize("dtype", SIXTEEN_BITS)
@pytest.mark.parametrize("multiprocessors", [1, 132])
def test_rows_of_a_block(multiprocessors, dtype) -> None:
    args = stem(h=57, w=70, n=2, o=16, dtype=dtype)
    check(args, multiprocessors=multiprocessors)
    assert torch.equal(run(args), run(args, multiprocessors=multiprocessors))


@pytest.mark.parametrize("dtype", LOW_DTYPES)
@pytest.mark.parametrize("padding", [(0, 0, 1, 1), (1, 0, 0, 2), (0, 0, 0, 0), (2, 2, 2, 2), (0, 5, 3, 0)])
def test_padding(padding, dtype) -> None:
    check(stem(padding=padding, o=8, dtype=dtype))


@pytest.mark.parametrize("dtype", LOW_DTYPES)
@pytest.mark.parametrize("n", [0, 3])
def test_batches(n, dtype) -> None:
    check(stem(n=n, dtype=dtype))


@pytest.mark.parametrize("dtype", LOW_DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation, dtype) -> None:
    args = stem(activation=activation, dtype=dtype)
    args[1] = args[1] * 4  # reach the ends of every activation
    check(args)


@pytest.mark.parametrize("dtype", LOW_DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("image_dtype", [torch.uint8, torch.float32, "storage"])
def test_images(image_dtype, layout, dtype) -> None:
    image_dtype = dtype if image_dtype == "storage" else image_dtype
    check(stem(n=2, h=9, o=8, layout=layout, image_dtype=image_dtype, dtype=dtype))


@pytest.mark.parametrize("dtype", LOW_DTYPES)
@pytest.mark.parametrize("without", [("mean", "std"), ("mean",), ("std",), ("bias",)])
def test_absent_tensors(without, dtype) -> None:
    check(stem(o=8, without=without, dtype=dtype))


@pytest.mark.parametrize("dtype", LOW_DTYPES)
@pytest.mark.parametrize(
    "options",
    [
        dict(k=5),
        dict(k=1, padding=(0,) * 4),
        dict(k=7, c=4, stride=3),
        dict(c=1, o=27),
        dict(stride=1),
        dict(c=27),
    ],
    ids=str,
)
def test_other_stems(options, dtype) -> None:
    check(stem(**{"o": 16, **options, "dtype": dtype}))


@pytest.mark.parametrize("dtype", LOW_DTYPES)
@pytest.mark.parametrize("o", [16, 20])
def test_exact(o, dtype) -> None:
    args = stem(n=2, o=o, activation="relu", exact=True, without=("mean", "std"), dtype=dtype)
    Expectation.of(OP, args).assert_exact(run(args))


@pytest.mark.parametrize("dtype", LOW_DTYPES)
def test_order_of_blocks_and_threads_does_not_matter(dtype) -> None:
    args = stem(n=2, h=57, o=40, dtype=dtype)
    assert torch.equal(run(args, seed=1), run(args, seed=2))


@pytest.mark.parametrize("dtype", LOW_DTYPES)
@pytest.mark.parametrize("o", [8, 20])
def test_nan_stays_under_its_taps(o, dtype) -> None:
    args = stem(h=15, w=15, o=o, image_dtype=torch.float32, activation="relu6", dtype=dtype)
    for y, x in ((6, 6), (7, 7)):
        image = args[0].clone()
        image[0, 1, y, x] = torch.nan
        rows, columns = torch.arange(8)[:, None], torch.arange(8)
        under = ((2 * rows - y).abs() <= 1) & ((2 * columns - x).abs() <= 1)
        assert torch.equal(run([image, *args[1:]]).isnan().all(1)[0], under)
        assert torch.equal(run([image, *args[1:]]).isnan().any(1)[0], under)


@pytest.mark.parametrize("dtype", SIXTEEN_BITS)
@pytest.mark.parametrize("o", [8, 20])
def test_a_pixel_is_rounded_before_it_is_multiplied(o, dtype) -> None:
    args = stem(h=5, w=5, o=o, image_dtype=torch.float32, activation="identity", dtype=dtype)
    image, weight = torch.ones_like(args[0]), torch.zeros_like(args[1])
    image[:, 0] += 2.0**-12  # below the rounding of both types: a difference of 0, not of this
    weight[:, 0, 1, 1], weight[:, 1, 1, 1] = 1, -1
    y = run([image, weight, None, *args[3:6], None, None, dtype])
    assert torch.equal(y, torch.zeros_like(y))
