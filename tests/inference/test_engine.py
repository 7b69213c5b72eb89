"""What an engine does with images: any number, any layout, splits, threads; and what it leaves alone."""

from __future__ import annotations

import copy
import dataclasses
import gc
import threading
import weakref

import pytest
import torch

from effnet_fast import InferenceEngine
from effnet_fast.inference import CpuLimits
from effnet_fast.measure.memory import peak_allocated_bytes
from effnet_fast.models import create_model
from effnet_fast.testing import LAYOUTS, arrange

SIZE = 32
DTYPES = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["f32", "bf16", "fp16"]
)
BACKENDS = pytest.mark.parametrize("backend", ["auto", "reference"])


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(9, 3, SIZE, SIZE)


def make(model, **options) -> InferenceEngine:
    return InferenceEngine(model, **{"batch_size": 4, "image_size": SIZE, **options})


def assert_same(engine: InferenceEngine, got: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal to the bit by our kernels; PyTorch's, in the reference, choose one by layout and batch."""
    if "reference" in engine.backends.values():
        eps = torch.finfo(engine.dtype).eps
        torch.testing.assert_close(got, expected, rtol=50 * eps, atol=50 * eps)
    else:
        assert torch.equal(got, expected)


@DTYPES
def test_results_do_not_depend_on_the_split(tiny, images, dtype, threads, monkeypatch):
    one_by_one = torch.cat([make(tiny, dtype=dtype)(image[None]) for image in images])
    for count in (1, 2):
        threads(count)
        for batch_size in (1, 4, 9):
            engine = make(tiny, batch_size=batch_size, dtype=dtype)
            assert_same(engine, engine(images), one_by_one)
    # A cache of nothing: every pass takes as few images as there are threads.
    monkeypatch.setattr(CpuLimits, "detect", classmethod(lambda cls: cls(0, 0, threads=2)))
    divided = make(tiny, batch_size=9, dtype=dtype)
    assert divided.plan.segments[0].images == 2
    assert_same(divided, divided(images), one_by_one)


@BACKENDS
@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 9])
def test_any_number_of_images(tiny, images, count, backend):
    engine = make(tiny, backend=backend)
    y = engine(images[:count])
    assert y.shape == (count, 10)
    assert y.dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(y, tiny(images[:count]), rtol=1e-4, atol=1e-4)


def test_results_stay_when_the_engine_is_used_again(tiny, images):
    engine = make(tiny)
    first = engine(images)
    kept = first.clone()
    engine(-images)
    assert torch.equal(first, kept)


@BACKENDS
@pytest.mark.parametrize("memory", [*LAYOUTS, "expanded"])
def test_any_memory_layout(tiny, images, memory, backend):
    engine = make(tiny, backend=backend)
    if memory == "expanded":
        given = images[:1].expand(5, -1, -1, -1)
        expected = engine(given.contiguous())
    else:
        given, expected = arrange(images, memory), engine(images)
    assert_same(engine, engine(given), expected)


@pytest.mark.parametrize("kind", ["float", "uint8"])
def test_nhwc_images(tiny, images, kind):
    if kind == "uint8":
        images = (images * 50 + 128).clamp(0, 255).byte()
    expected = make(tiny, input=kind)(images)
    channels_last = make(tiny, input=kind, layout="NHWC")
    assert_same(channels_last, channels_last(images.permute(0, 2, 3, 1)), expected)
    assert_same(channels_last, channels_last(images.permute(0, 2, 3, 1).contiguous()), expected)


def test_float_images_of_another_dtype(tiny, images):
    for engine_dtype in (torch.float32, torch.bfloat16, torch.float16):
        engine = make(tiny, dtype=engine_dtype)
        for dtype in (torch.bfloat16, torch.float16):
            rounded = images.to(dtype)
            assert torch.equal(engine(rounded), engine(rounded.float()))


@BACKENDS
@pytest.mark.parametrize("normalisation", ["model's", "given"])
def test_uint8_images_are_normalised(tiny, normalisation, backend):
    pixels = torch.randint(0, 256, (5, 3, SIZE, SIZE), dtype=torch.uint8)
    tiny.preprocessing = dataclasses.replace(tiny.preprocessing, mean=(0.3, 0.5, 0.7), std=(0.2, 0.3, 0.4))
    if normalisation == "given":
        given = {"mean": (0.1, 0.2, 0.3), "std": [0.5, 0.6, 0.7]}
        mean, std = given["mean"], given["std"]
    else:
        given, mean, std = {}, tiny.preprocessing.mean, tiny.preprocessing.std
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (mean, std))
    normalised = ((pixels.double() / 255 - mean) / std).float()
    expected = make(tiny, backend=backend)(normalised)
    got = make(tiny, backend=backend, input="uint8", **given)(pixels)
    assert (got - expected).norm() <= 1e-5 * expected.norm()
    low = make(tiny, backend=backend, input="uint8", dtype=torch.bfloat16, **given)(pixels)
    low_expected = make(tiny, backend=backend, dtype=torch.bfloat16)(normalised)
    assert (low - low_expected).norm() <= 0.05 * low_expected.norm()


def test_model_without_preprocessing_gets_imagenets(tiny, caplog):
    pixels = torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8)
    imagenet = make(tiny, input="uint8", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    del tiny.preprocessing
    with caplog.at_level("WARNING", logger="effnet_fast"):
        engine = make(tiny, input="uint8")
    assert "ImageNet" in caplog.text
    assert torch.equal(engine(pixels), imagenet(pixels))
    with pytest.raises(ValueError, match="image_size must be given for a model without `preprocessing`"):
        make(tiny, image_size=None)


@DTYPES
@BACKENDS
def test_nan_stays_in_its_image(tiny, images, dtype, backend):
    engine = make(tiny, dtype=dtype, backend=backend)
    clean = engine(images)
    images[3, 1, 20, 5] = float("nan")
    y = engine(images)
    assert y[3].isnan().all()
    others = [0, 1, 2, 4, 5, 6, 7, 8]
    assert_same(engine, y[others], clean[others])
    assert_same(engine, engine(images[others]), clean[others])


def test_poisoned_memory_is_never_read(tiny, images):
    engine = make(tiny)
    expected = engine(images)
    engine._runner.arena.fill_(255)  # NaN in every dtype
    assert torch.equal(engine(images), expected)


def test_model_is_unchanged(tiny, images):
    tiny.register_forward_hook(lambda *_: None)
    before = copy.deepcopy(tiny.state_dict())
    hooks = dict(tiny._forward_hooks)
    grads = [p.requires_grad for p in tiny.parameters()]
    pointers = [t.data_ptr() for t in tiny.state_dict().values()]
    make(tiny, dtype=torch.bfloat16)(images)
    after = tiny.state_dict()
    assert list(after) == list(before)
    assert all(
        torch.equal(after[key], before[key]) and after[key].dtype == before[key].dtype for key in before
    )
    assert not any(module.training for module in tiny.modules())
    assert tiny._forward_hooks == hooks
    assert [p.requires_grad for p in tiny.parameters()] == grads
    assert [t.data_ptr() for t in after.values()] == pointers


def test_engine_does_not_follow_or_keep_the_model(images):
    model = create_model("efficientnet_lite0").eval()
    engine = make(model)
    expected = engine(images)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(engine(images), expected)
    alive = [weakref.ref(parameter) for parameter in model.parameters()]
    del model, parameter
    gc.collect()
    assert not any(reference() is not None for reference in alive)


def test_logits_are_ordinary_tensors(tiny, images):
    logits = make(tiny)(images.requires_grad_())
    assert not logits.requires_grad
    assert not logits.is_inference()
    scale = torch.ones(10, requires_grad=True)
    (logits * scale).sum().backward()
    torch.testing.assert_close(scale.grad, logits.sum(0))


@pytest.mark.parametrize(
    "context",
    [torch.no_grad, torch.inference_mode, torch.enable_grad, lambda: torch.autocast("cpu", torch.bfloat16)],
    ids=["no_grad", "inference_mode", "enable_grad", "autocast"],
)
@BACKENDS
def test_results_do_not_depend_on_the_callers_mode(tiny, images, context, backend):
    expected = make(tiny, backend=backend)(images)
    with context():
        assert torch.equal(make(tiny, backend=backend)(images), expected)


def test_engine_works_when_made_in_inference_mode(tiny, images):
    expected = make(tiny)(images)
    with torch.inference_mode():
        engine = make(tiny)
        engine(images)
    assert torch.equal(engine(images), expected)


@DTYPES
def test_four_threads_get_their_own_results(tiny, dtype, threads):
    threads(2)
    engine = make(tiny, dtype=dtype)
    batches = [torch.randn(1 + 2 * i, 3, SIZE, SIZE) for i in range(4)]
    expected = [engine(batch) for batch in batches]
    wrong: list[int] = []
    start = threading.Barrier(4)

    def work(i: int) -> None:
        start.wait()
        for _ in range(10):
            if not torch.equal(engine(batches[i]), expected[i]):
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


def test_two_engines_do_not_share_memory(tiny, images):
    first, second = make(tiny), make(tiny)
    expected = first(images)
    second(images * 2)
    assert torch.equal(first(images), expected)
    assert first._runner.arena.data_ptr() != second._runner.arena.data_ptr()


def test_programs_are_kept_but_bounded(tiny):
    engine = make(tiny, batch_size=20)
    for count in range(1, 21):
        engine(torch.zeros(count, 3, SIZE, SIZE))
    assert len(engine._runner._programs) == 8
    kept = engine._runner.program(20)
    engine(torch.zeros(20, 3, SIZE, SIZE))
    assert engine._runner.program(20) is kept


def test_a_call_allocates_its_logits_alone(tiny, images):
    """Everything else lies in the arena (what C++ kernels take for themselves aside)."""
    engine = make(tiny, batch_size=9)
    assert set(engine.backends.values()) == {"cpu"}  # the reference allocates its intermediates
    engine(images)
    assert peak_allocated_bytes(lambda: engine(images)) <= 9 * 10 * 4 + 64


def test_warmup_binds_the_full_batch(tiny):
    for options in ({}, {"layout": "NHWC"}, {"input": "uint8"}, {"dtype": torch.bfloat16}):
        engine = make(tiny, **options)
        assert engine.warmup() is None
        assert list(engine._runner._programs) == [4]


def test_properties_and_reports(tiny):
    engine = make(tiny, image_size=(32, 40), backend="reference", dtype=torch.bfloat16)
    assert (engine.batch_size, engine.image_size, engine.dtype) == (4, (32, 40), torch.bfloat16)
    assert engine.device == torch.device("cpu")
    assert set(engine.backends.values()) == {"reference"}
    assert engine.plan.batch == 4
    assert "stages.2.1" in str(engine.plan)
    memory = engine.memory
    assert 0 < memory.peak_bytes <= memory.arena_bytes
    parameters = sum(p.numel() for p in tiny.parameters())
    assert parameters * 2 < memory.weight_bytes < parameters * 8
    assert memory.scratch_bytes == 0  # the reference's maps are PyTorch's
    assert memory.total_bytes == memory.arena_bytes + memory.weight_bytes
    assert "KiB" in str(memory)
    assert repr(engine) == (
        "InferenceEngine(batch_size=4, image_size=(32, 40), dtype=torch.bfloat16, device='cpu', "
        "backend='reference', input='float', layout='NCHW')"
    )


def test_image_size_defaults_to_the_models(tiny):
    assert InferenceEngine(tiny, batch_size=1).image_size == (224, 224)
