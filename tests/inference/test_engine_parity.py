"""The engine against its model in float64, for every member of the family at reduced size.

The yardstick is the stock model in the engine's dtype: the engine may be off by twice the stock model's own
error plus the contract's slack. The sums of the slack are those of the widest layer, the classifier's.
"""

from __future__ import annotations

import pytest
import torch

from effnet_fast import InferenceEngine, list_models
from effnet_fast.backends import Backend, device_type
from effnet_fast.models.config import Preprocessing
from tests.inference.parity import budget

# Above 50 million parameters, making the model takes longer than everything else.
LARGE = ("b7", "b8", "l2", "v2_m", "v2_l", "v2_xl")
FAMILY = [
    pytest.param(name, marks=pytest.mark.slow if name.endswith(LARGE) else ())
    for name in sorted(list_models())
]
# Odd sizes: SAME padding differs from layer to layer, and the last maps are 2 x 3.
SIZE = (63, 70)


@pytest.mark.parametrize("name", FAMILY)
def test_engine_equals_model_in_float32(trained, name):
    model, x = trained(name), torch.randn(3, 3, *SIZE)
    y = InferenceEngine(model, batch_size=2, image_size=SIZE)(x)
    assert y.dtype == torch.float32
    expected = budget(model, x, torch.float32)
    expected.assert_within(y)
    assert (y - expected.r64).norm() <= 1e-5 * expected.r64.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize(
    "name",
    [
        "efficientnet_b0",
        "tf_efficientnet_lite0",
        pytest.param("tf_efficientnet_b3", marks=pytest.mark.slow),
        pytest.param("efficientnet_lite3", marks=pytest.mark.slow),
    ],
)
def test_engine_equals_model_in_16_bits(trained, name, dtype):
    model, x = trained(name), torch.randn(3, 3, *SIZE)
    # The stock model gets rounded images; the engine rounds them itself.
    expected = budget(model, x, dtype)
    y = InferenceEngine(model, batch_size=3, image_size=SIZE, dtype=dtype)(x)
    assert y.dtype == torch.float32
    expected.assert_within(y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["f32", "bf16", "fp16"])
@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("change", ["published", "symmetric relu", "no squeeze-excite", "one channel"])
def test_engine_equals_tiny_model(tiny_with, change, backend, dtype):
    model = tiny_with(
        **{
            "published": {},
            "symmetric relu": {"padding": "symmetric", "activation": "hardswish"},
            "no squeeze-excite": {"squeeze_ratio": None, "activation": "relu6"},
            "one channel": {"in_chans": 1, "preprocessing": one_channel()},
        }[change]
    )
    x = torch.randn(4, model.config.in_chans, 33, 30)
    engine = InferenceEngine(model, batch_size=4, image_size=(33, 30), backend=backend, dtype=dtype)
    budget(model, x, dtype).assert_within(engine(x))


@pytest.mark.interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["f32", "bf16", "fp16"])
def test_engine_equals_tiny_model_through_triton(tiny, dtype):
    x = torch.randn(2, 3, 33, 30)
    engine = InferenceEngine(
        tiny,
        batch_size=2,
        image_size=(33, 30),
        backend="triton",
        dtype=dtype,
        device=device_type(Backend.TRITON),
    )
    assert set(engine.backends.values()) == {"triton"}
    budget(tiny, x, dtype).assert_within(engine(x.to(engine.device)))


@pytest.mark.gpu
@pytest.mark.parametrize("cuda_graph", [True, False], ids=["graph", "kernels"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["f32", "bf16", "fp16"])
@pytest.mark.parametrize("backend", ["cuda", "triton"])
@pytest.mark.parametrize("name", ["efficientnet_b0", "tf_efficientnet_b4"])
def test_engine_equals_model_on_a_gpu(trained, name, backend, dtype, cuda_graph):
    model, x = trained(name), torch.randn(3, 3, *SIZE)
    options = {"image_size": SIZE, "dtype": dtype, "device": "cuda", "cuda_graph": cuda_graph}
    engine = InferenceEngine(model, batch_size=2, backend=backend, **options)
    assert set(engine.backends.values()) == {backend}
    engine.warmup()
    budget(model, x, dtype).assert_within(engine(x).cpu())


def one_channel():
    return Preprocessing(size=32, crop=1.0, interpolation="bicubic", mean=(0.5,), std=(0.25,))


def test_engine_reads_a_model_of_another_dtype(tiny):
    x = torch.randn(2, 3, 32, 32)
    expected = InferenceEngine(tiny, batch_size=2, image_size=32)(x)
    got = InferenceEngine(tiny.double(), batch_size=2, image_size=32)(x)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
