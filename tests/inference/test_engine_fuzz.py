"""Drawn engines, drawn calls: an image's logits do not depend on what shares its call, batch or memory.

The truth is one image at a time, contiguous, through an engine of batch size 1: that one is held to the model
in float64 by the tests of parity.
"""

from __future__ import annotations

import functools
from unittest import mock

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from effnet_fast import InferenceEngine
from effnet_fast.inference import CpuLimits
from effnet_fast.testing import LAYOUTS, arrange
from tests.networks import make_tiny

SIZE = (21, 17)
LARGEST_BATCH = 5
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@functools.cache
def model() -> torch.nn.Module:
    return make_tiny()


@functools.cache
def engine(
    batch_size: int, dtype: torch.dtype, kind: str, layout: str, cache: int | None = None
) -> InferenceEngine:
    """`cache`: bytes that a pass may fill, instead of this machine's: few images at a time, many segments."""
    limits = CpuLimits.detect() if cache is None else CpuLimits(cache, 0, threads=1)
    with mock.patch.object(CpuLimits, "detect", return_value=limits):
        return InferenceEngine(
            model(),
            batch_size=batch_size,
            image_size=SIZE,
            dtype=dtype,
            backend="cpu",
            input=kind,
            layout=layout,
        )


@functools.cache
def pool(image_dtype: torch.dtype) -> Tensor:
    """Images to choose from; the last one of floats has a NaN."""
    generator = torch.Generator().manual_seed(3)
    if image_dtype == torch.uint8:
        return torch.randint(0, 256, (6, 3, *SIZE), dtype=torch.uint8, generator=generator)
    images = torch.randn(6, 3, *SIZE, generator=generator)
    images[-1, 1, 4, 5] = torch.nan
    return images.to(image_dtype)


@functools.cache
def truth(dtype: torch.dtype, image_dtype: torch.dtype) -> Tensor:
    """Logits of every image of the pool, each computed alone."""
    alone = engine(1, dtype, "uint8" if image_dtype == torch.uint8 else "float", "NCHW")
    return torch.cat([alone(image[None].contiguous()) for image in pool(image_dtype)])


@settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_images_of_a_call_do_not_know_each_other(data) -> None:
    dtype = data.draw(st.sampled_from(DTYPES), "engine's dtype")
    image_dtype = data.draw(st.sampled_from((*DTYPES, torch.uint8)), "images' dtype")
    batch_size = data.draw(st.integers(1, LARGEST_BATCH), "batch_size")
    count = data.draw(st.integers(0, 3 * batch_size), "images")
    order = data.draw(st.sampled_from(["NCHW", "NHWC"]), "layout")
    memory = data.draw(st.sampled_from([*LAYOUTS, "one image expanded"]), "memory")
    cache = data.draw(st.sampled_from([None, 0, 20_000]), "bytes of cache")

    images, expected = pool(image_dtype), truth(dtype, image_dtype)
    if memory == "one image expanded":
        chosen = [data.draw(st.integers(0, len(images) - 1), "image")] * count
        given_images = images[chosen[0] : chosen[0] + 1].expand(count, -1, -1, -1) if count else images[:0]
    else:
        # The NaN too: it must stay with its image.
        chosen = data.draw(st.lists(st.integers(0, len(images) - 1), min_size=count, max_size=count), "which")
        given_images = arrange(images[chosen], memory)
    if order == "NHWC":
        given_images = given_images.permute(0, 2, 3, 1)
    kind = "uint8" if image_dtype == torch.uint8 else "float"
    logits = engine(batch_size, dtype, kind, order, cache)(given_images)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected[chosen], rtol=0, atol=0, equal_nan=True)


def test_a_small_cache_divides_the_batch() -> None:
    segments = [engine(4, torch.float32, "float", "NCHW", cache).plan.segments for cache in (0, 20_000, None)]
    assert segments[0][0].images == 1
    assert len(segments[1]) > 1
    assert segments[2][0].images == 4


def test_the_images_are_told_apart() -> None:
    for dtype in DTYPES:
        for image_dtype in (*DTYPES, torch.uint8):
            expected = truth(dtype, image_dtype)
            assert expected.shape == (6, 10)
            finite = expected if image_dtype == torch.uint8 else expected[:-1]
            assert finite.isfinite().all()
            assert len({tuple(row) for row in finite.tolist()}) == len(finite)
            assert len(finite) == 6 or expected[-1].isnan().all()
