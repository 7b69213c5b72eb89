"""Bad options and bad images: refused, with the argument, what was given and what is allowed."""

from __future__ import annotations

import pytest
import torch

from effnet_fast import InferenceEngine
from effnet_fast.models import create_model


def make(model, **options) -> InferenceEngine:
    return InferenceEngine(model, **{"batch_size": 2, "image_size": 32, **options})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"batch_size": 2.0}, TypeError, "batch_size must be an integer, got float"),
        ({"batch_size": True}, TypeError, "batch_size must be an integer, got bool"),
        (
            {"image_size": 0},
            ValueError,
            r"image_size must be a positive integer or a pair of them \(h, w\), got 0",
        ),
        ({"image_size": (32, 32, 3)}, ValueError, r"image_size must be .* got \(32, 32, 3\)"),
        ({"image_size": "224"}, ValueError, "image_size must be .* got '224'"),
        ({"image_size": (32, 1.5)}, ValueError, r"image_size must be .* got \(32, 1\.5\)"),
        (
            {"dtype": torch.float64},
            TypeError,
            "dtype must be float32, float16 or bfloat16 or None, got float64",
        ),
        ({"dtype": torch.int8}, TypeError, "dtype must be .* got int8"),
        ({"dtype": "bf16"}, TypeError, "dtype must be .* got 'bf16'"),
        (
            {"backend": "fast"},
            ValueError,
            "backend = 'fast', expected one of auto, cuda, triton, cpu, reference",
        ),
        ({"backend": "cuda"}, RuntimeError, "backend cuda cannot serve"),
        ({"input": "int8"}, ValueError, "input must be one of 'float', 'uint8', got 'int8'"),
        ({"layout": "CHWN"}, ValueError, "layout must be one of 'NCHW', 'NHWC', got 'CHWN'"),
        ({"mean": (0, 0, 0)}, ValueError, 'mean applies to input="uint8" only'),
        ({"std": (1, 1, 1)}, ValueError, 'std applies to input="uint8" only'),
        ({"input": "uint8", "mean": (0.5,)}, ValueError, r"mean must be 3 finite numbers, .* got \(0\.5,\)"),
        ({"input": "uint8", "mean": 0.5}, TypeError, "mean must be a sequence of numbers, got float"),
        ({"input": "uint8", "std": (1, 0, 1)}, ValueError, "std must be greater than 0 in every channel"),
        ({"input": "uint8", "std": (1, float("nan"), 1)}, ValueError, "std must be 3 finite numbers"),
        (
            {"input": "uint8", "mean": (123.7, 116.3, 103.5), "std": (58.4, 57.1, 57.4)},
            ValueError,
            r"mean must be in units of \[0, 1\], at most 1, got \(123\.7, .*divide mean and std",
        ),
        ({"input": "uint8", "mean": (0, 0, 0), "std": (255, 255, 255)}, ValueError, "std must be in units"),
        ({"device": "meta"}, ValueError, "device must be one that computes, got meta"),
        ({"cuda_graph": True}, RuntimeError, "cuda_graph=True needs kernels of the cuda or triton backend"),
        ({"cuda_graph": "yes"}, ValueError, "cuda_graph must be \"auto\", True or False, got 'yes'"),
    ],
)
def test_engine_refuses_bad_options(tiny, options, error, message):
    with pytest.raises(error, match=message):
        make(tiny, **options)


def test_engine_refuses_training_mode(tiny):
    with pytest.raises(ValueError, match=r"model must be in evaluation mode.*call model\.eval\(\) first"):
        make(tiny.train())


def test_engine_refuses_a_model_without_memory():
    with torch.device("meta"):
        model = create_model("efficientnet_lite0").eval()
    with pytest.raises(
        ValueError, match="model must have its weights in memory, got tensors on the meta device"
    ):
        make(model)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (
            torch.zeros(1, 4, 32, 32),
            ValueError,
            r"images must have shape \[N, 3, 32, 32\] \(NCHW\), got \[1, 4, 32, 32\]",
        ),
        (torch.zeros(1, 3, 32, 33), ValueError, r"must have shape \[N, 3, 32, 32\] .* got \[1, 3, 32, 33\]"),
        (torch.zeros(3, 32, 32), ValueError, r"must have shape \[N, 3, 32, 32\] .* got \[3, 32, 32\]"),
        (torch.zeros(1, 32, 32, 3), ValueError, r"must have shape \[N, 3, 32, 32\]"),
        (
            torch.zeros(1, 3, 32, 32).double(),
            TypeError,
            "must be float32, float16 or bfloat16 .* got float64",
        ),
        (torch.zeros(1, 3, 32, 32).byte(), TypeError, 'got uint8: make the engine with input="uint8"'),
        (torch.zeros(1, 3, 32, 32).long(), TypeError, "got int64"),
        (torch.zeros(1, 3, 32, 32).to_sparse(), TypeError, "images must be a dense tensor, got .*sparse_coo"),
        (torch.zeros(1, 3, 32, 32, device="meta"), ValueError, "images must have values, got .* meta device"),
        ([[0.0]], TypeError, "images must be a torch.Tensor, got list"),
        (None, TypeError, "images must be a torch.Tensor, got NoneType"),
    ],
    ids=lambda value: None if isinstance(value, (type, str)) else "images",
)
def test_engine_refuses_bad_images(tiny, images, error, message, backend):
    with pytest.raises(error, match=message):
        make(tiny, backend=backend)(images)


def test_engine_refuses_bad_nhwc_and_uint8_images(tiny):
    engine = make(tiny, layout="NHWC", input="uint8")
    with pytest.raises(ValueError, match=r"\[N, 32, 32, 3\] \(NHWC\), got \[1, 3, 32, 32\]"):
        engine(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(TypeError, match='images must be uint8 for an engine with input="uint8", got float32'):
        engine(torch.zeros(1, 32, 32, 3))


def test_engine_still_works_after_a_refusal(tiny):
    engine = make(tiny)
    x = torch.randn(3, 3, 32, 32)
    expected = engine(x)
    with pytest.raises(ValueError, match="images must have shape"):
        engine(x[:, :2])
    assert torch.equal(engine(x), expected)
