"""Calls of the CPU library as one program: the bits of one by one, their checks, nothing held too long."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from effnet_fast import InferenceEngine
from effnet_fast.inference import BlockForm, CpuLimits
from effnet_fast.inference.native_program import ImageRange
from effnet_fast.inference.program import assemble

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
SIZE = 64


def _images(count: int, kind: str, size: int) -> torch.Tensor:
    shape = (count, 3, size, size)
    return torch.randint(0, 256, shape, dtype=torch.uint8) if kind == "uint8" else torch.randn(shape)


def _one_by_one(engine: InferenceEngine, images: torch.Tensor) -> torch.Tensor:
    program = engine._runner.program(images.shape[0])
    with torch.inference_mode():
        return replace(program, runs=()).run(images).clone()


def _assert_same_bits(engine: InferenceEngine, images: torch.Tensor) -> None:
    """The logits of programs, of the dispatcher, and of a program again: it does not change itself."""
    program = engine._runner.program(images.shape[0])
    assert len(program.runs) == 1  # every call of the pass, in one
    logits = engine(images)
    assert logits.isfinite().all()
    assert torch.equal(logits, _one_by_one(engine, images))
    engine._runner.arena.fill_(255)
    assert torch.equal(logits, engine(images))


@pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "fp16", "bf16"])
@pytest.mark.parametrize("kind", ["float", "uint8"])
@pytest.mark.parametrize(
    "name", ["efficientnet_b0", "tf_efficientnet_lite0", "mobilenetv2_100", "tf_efficientnetv2_b0"]
)
def test_a_network_gives_the_same_bits(trained, name, kind, dtype):
    engine = InferenceEngine(trained(name), batch_size=3, image_size=SIZE, dtype=dtype, input=kind)
    for count in (1, 3):
        _assert_same_bits(engine, _images(count, kind, SIZE))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_number_of_images_and_threads_gives_the_same_bits(tiny, count, threads):
    engine = InferenceEngine(tiny, batch_size=3, image_size=32)
    images = _images(count, "float", 32)
    expected = _one_by_one(engine, images)
    torch.set_num_threads(threads)
    _assert_same_bits(engine, images)
    assert torch.equal(engine(images), expected)


@pytest.mark.parametrize("form", [BlockForm.THREE_KERNELS, BlockForm.EXPANSION_FUSED], ids=str)
def test_every_form_of_a_block_gives_the_same_bits(tiny_with, take, form):
    take(form)
    for squeeze_ratio in (0.25, None):
        model = tiny_with(squeeze_ratio=squeeze_ratio)
        _assert_same_bits(InferenceEngine(model, batch_size=2, image_size=32), _images(2, "float", 32))


def test_passes_over_parts_of_a_batch_read_their_own_images(tiny, monkeypatch):
    monkeypatch.setattr(CpuLimits, "detect", classmethod(lambda cls: cls(0, 0, threads=1)))
    engine = InferenceEngine(tiny, batch_size=3, image_size=32)
    assert len(engine._runner.program(3).passes) > 1
    images = _images(3, "float", 32)
    _assert_same_bits(engine, images)
    torch.testing.assert_close(engine(images)[[2]], engine(images[[2]]), rtol=0, atol=0)
    _assert_same_bits(engine, _images(3, "float", 32).to(memory_format=torch.channels_last))


def test_calls_that_are_not_the_librarys_run_between_its_own(tiny):
    engine = InferenceEngine(tiny, batch_size=2, image_size=32)
    images = _images(2, "float", 32)
    expected = engine(images)
    program = engine._runner.program(2)
    (only,) = program.passes
    middle, stem = len(only.calls) // 2, only.stem
    seen = []

    def python(call):
        def run(*arguments):
            seen.append(tuple(arguments[1].shape))
            call(*arguments)

        return run

    calls = list(only.calls)
    calls[middle] = (python(calls[middle][0]), calls[middle][1])
    parts = (replace(only, stem=(python(stem[0]), stem[1]), calls=tuple(calls)),)
    mixed = assemble(parts, program.output, 2)
    assert len(mixed.runs) == 4  # stem, the library's, one call, the library's
    engine._runner.arena.fill_(255)
    with torch.inference_mode():
        assert torch.equal(mixed.run(images), expected)
    assert seen == [(2, 3, 32, 32), tuple(calls[middle][1][1].shape)]
    everything = tuple((python(call), given) for call, given in calls)
    nothing = assemble((replace(only, stem=(python(stem[0]), stem[1]), calls=everything),), program.output, 2)
    assert nothing.runs == ()


def test_the_reference_backend_has_no_program(tiny):
    assert (
        InferenceEngine(tiny, batch_size=1, image_size=32, backend="reference")._runner.program(1).runs == ()
    )


def test_whoever_looks_at_operators_sees_each_of_them(tiny):
    engine = InferenceEngine(tiny, batch_size=1, image_size=32)
    images = _images(1, "float", 32)
    expected = engine(images)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        engine(images)
    names = [event.name for event in profiled.events() if event.name.startswith("effnet_fast::")]
    assert names == [f"effnet_fast::{layer.operator}_packed_into" for layer in engine.plan.layers]

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            found.append(func)
            return func(*args, **(kwargs or {}))

    found: list = []
    with Seen():
        assert torch.equal(engine(images), expected)
    ours = [str(func) for func in found if func.namespace == "effnet_fast"]
    assert ours == [f"effnet_fast.{layer.operator}_packed_into.default" for layer in engine.plan.layers]


def test_what_a_step_refuses_is_said_with_its_operator(tiny):
    engine = InferenceEngine(tiny, batch_size=2, image_size=32)
    (run,) = engine._runner.program(2).runs
    with torch.inference_mode():
        with pytest.raises(
            RuntimeError, match=r"effnet_fast::stem_conv_packed_into: .*5 -> 8 channels|wants 5"
        ):
            run(torch.zeros(2, 5, 32, 32))
        with pytest.raises(RuntimeError, match=r"effnet_fast::stem_conv_packed_into: .*y has shape"):
            run(torch.zeros(2, 3, 40, 32))
        with pytest.raises(RuntimeError, match=r"stem_conv_packed_into: .*images 0\.\.2 of a batch"):
            run(torch.zeros(1, 3, 32, 32))
        with pytest.raises(RuntimeError, match="stem_conv_packed_into: .*dtype"):
            run(torch.zeros(2, 3, 32, 32, dtype=torch.float64))
        # More are as many as it is bound for, and it is none the worse for what it refused.
        images = _images(3, "float", 32)
        run(images)
        assert torch.equal(engine._runner.program(2).output, engine(images[:2]))


def test_a_program_is_gone_with_its_engine_and_so_is_its_memory(tiny):
    engine = InferenceEngine(tiny, batch_size=1, image_size=32)
    images = _images(1, "float", 32)
    engine(images)
    (run,) = engine._runner.program(1).runs
    number, arena = run._number, weakref.ref(engine._runner.arena)
    view = weakref.ref(engine._runner.program(1).passes[0].calls[0][1][0])
    del run, engine
    gc.collect()
    assert arena() is None
    assert view() is None
    for call in (lambda: torch.ops.effnet_fast.cpu_program_run(number, images),
                 lambda: torch.ops.effnet_fast.cpu_program_free(number)):  # fmt: skip
        with pytest.raises(ValueError, match=f"no program {number}"):
            call()


def test_ranges_of_images_are_cut_as_tensors_are():
    batch = torch.arange(7)
    for a, b, c, d in [(0, 7, 0, 7), (2, 7, 1, 3), (0, 5, 3, 99), (1, 4, 2, 2), (3, 3, 0, 1), (0, 7, 5, 2)]:
        part = ImageRange(0, 7)[a:b][c:d]
        assert torch.equal(part.of(batch), batch[a:b][c:d])
        assert part.shape == batch[a:b][c:d].shape


def test_many_threads_with_engines_of_their_own(tiny):
    torch.set_num_threads(2)
    engines = [InferenceEngine(tiny, batch_size=2, image_size=32) for _ in range(3)]
    images = [_images(2, "float", 32) for _ in range(6)]
    expected = [_one_by_one(engines[0], batch) for batch in images]

    def work(index: int) -> bool:
        return all(
            torch.equal(engines[index % 3](images[i % 6]), expected[i % 6]) for i in range(index, index + 40)
        )

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(6)))
