"""`engine.as_module()` compiled, exported, and loaded back in processes that have only the file."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
import torch._inductor.config
from torch.export import Dim

from effnet_fast import InferenceEngine
from effnet_fast.models.config import MBConvConfig

SIZE = 32
COUNTS = (0, 1, 3, 9)
# One dtype and layout of images in every run; the others differ in nothing that a compiler sees.
FORMS = {
    "bf16 uint8 NHWC": {"dtype": torch.bfloat16, "input": "uint8", "layout": "NHWC"},
    "f32 float NCHW": {},
    "f32 uint8 NCHW": {"input": "uint8"},
    "bf16 float NHWC": {"dtype": torch.bfloat16, "layout": "NHWC"},
    "fp16 float NCHW": {"dtype": torch.float16},
}
EVERY_FORM = pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
ONE_FORM_AND_THE_REST_SLOW = pytest.mark.parametrize(
    "options",
    [pytest.param(form, marks=[pytest.mark.slow] if i else []) for i, form in enumerate(FORMS.values())],
    ids=FORMS,
)
BATCH = ({0: Dim("N")},)


def make(model, **options) -> InferenceEngine:
    return InferenceEngine(model, **{"batch_size": 4, "image_size": SIZE, **options})


def make_images(engine: InferenceEngine, count: int = 9) -> torch.Tensor:
    """Different images, as `engine` takes them."""
    spec = engine._spec
    shape = [{"N": count, "C": 3, "H": SIZE, "W": SIZE}[letter] for letter in spec.layout]
    return torch.randint(0, 256, shape, dtype=torch.uint8) if spec.kind == "uint8" else torch.randn(shape)


def fresh_process(
    script: str, *arguments: object, timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env={**os.environ, "TORCHINDUCTOR_VEC_ISA_OK": "0"},  # as `quick_inductor`
    )


@pytest.fixture
def quick_inductor():
    """Inductor compiles and starts programs to learn what vectors it may use; here all kernels are ours."""
    with torch._inductor.config.patch({"cpp.vec_isa_ok": False}):
        yield


@ONE_FORM_AND_THE_REST_SLOW
def test_compile(tiny, options):
    torch._dynamo.reset()
    engine = make(tiny, **options)
    images = make_images(engine)
    compiled = torch.compile(engine.as_module(), fullgraph=True, dynamic=True, backend="aot_eager")
    # Of two sizes that are equal at first, 3 images of 3 channels, PyTorch makes one.
    with torch._dynamo.config.patch(error_on_recompile=True):
        for count in (2, 3, 9):
            assert torch.equal(compiled(images[:count]), engine(images[:count]))
    for count in (0, 1):
        assert torch.equal(compiled(images[:count]), engine(images[:count]))


def test_compile_with_inductor_and_what_stands_around(tiny, quick_inductor):
    torch._dynamo.reset()
    engine = make(tiny)
    network, images = engine.as_module(), make_images(engine)
    compiled = torch.compile(lambda x: network(2 * x - 1).softmax(1), fullgraph=True, dynamic=True)
    for count in (2, 9):
        expected = engine(2 * images[:count] - 1).softmax(1)
        torch.testing.assert_close(compiled(images[:count]), expected, rtol=1e-4, atol=1e-5)


def test_compiled_and_exported_networks_refuse_gradients(tiny):
    torch._dynamo.reset()
    engine = make(tiny)
    network, images = engine.as_module(), make_images(engine)
    wanted = images.clone().requires_grad_()
    with pytest.raises(RuntimeError, match="computes no gradients"):
        torch.compile(network, backend="eager", fullgraph=True)(wanted)
    with pytest.raises(RuntimeError, match="computes no gradients"):
        torch.export.export(network, (wanted,))
    program = torch.export.export(network, (images,)).module()
    with pytest.raises(RuntimeError, match=r"has no backward.*torch\.no_grad"):
        program(wanted)
    with torch.no_grad():
        assert torch.equal(program(wanted), engine(images))


_COMPILE_A_DEEP_NETWORK = """
import sys, torch
network, images, logits = torch.load(sys.argv[1], weights_only=False)
assert torch.equal(torch.compile(network, fullgraph=True)(images), logits)
"""


def test_deep_networks_compile_with_inductor(tiny_with, tmp_path):
    """In a process that has compiled nothing yet: what exportable.py avoids takes days with 24 blocks."""
    stage = MBConvConfig(expand=2, kernel=3, stride=1, channels=8, layers=24)
    engine = make(tiny_with(stages=(stage,)))
    images = make_images(engine, 2)
    torch.save((engine.as_module(), images, engine(images)), tmp_path / "network.pth")
    done = fresh_process(_COMPILE_A_DEEP_NETWORK, tmp_path / "network.pth", timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("strict", [False, True])
@EVERY_FORM
def test_export(tiny, options, strict):
    engine = make(tiny, **options)
    images = make_images(engine)
    program = torch.export.export(engine.as_module(), (images[:2],), dynamic_shapes=BATCH, strict=strict)
    for count in COUNTS:
        assert torch.equal(program.module()(images[:count]), engine(images[:count]))
    assert not program.state_dict
    with pytest.raises(AssertionError, match="Guard failed"):
        program.module()(images[:, :-1, :-1] if engine._spec.layout == "NHWC" else images[..., :-1, :-1])


def test_exported_graphs_are_our_operators(tiny):
    engine = make(tiny)
    program = torch.export.export(engine.as_module(), (make_images(engine),), dynamic_shapes=BATCH)
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    ours = [name for name in called if name.startswith("effnet_fast.")]
    assert len(ours) == len(engine.plan.layers)
    assert all(".contiguous" not in name and "copy" not in name for name in called)


def test_reference_exports_plain_pytorch(tiny, tmp_path):
    """A file that runs where effnet_fast is not installed."""
    engine = make(tiny, backend="reference")
    images = make_images(engine)
    program = torch.export.export(engine.as_module(), (images[:2],), dynamic_shapes=BATCH)
    torch.export.save(program, tmp_path / "network.pt2")
    torch.save([(images[:n], engine(images[:n])) for n in COUNTS], tmp_path / "cases.pth")
    done = fresh_process(_RUN_PLAIN, tmp_path / "network.pt2", tmp_path / "cases.pth")
    assert done.returncode == 0, done.stderr


_RUN_PLAIN = """
import sys, torch
network = torch.export.load(sys.argv[1]).module()
for images, logits in torch.load(sys.argv[2]):
    torch.testing.assert_close(network(images), logits, rtol=1e-4, atol=1e-4)
assert "effnet_fast" not in sys.modules
"""

_RUN_EXPORTED = """
import sys, torch, effnet_fast
network = torch.export.load(sys.argv[1]).module()
for images, logits in torch.load(sys.argv[2]):
    assert torch.equal(network(images), logits), images.shape
"""

_RUN_COMPILED = """
import sys, torch, effnet_fast
network = torch._inductor.aoti_load_package(sys.argv[1])
for images, logits in torch.load(sys.argv[2]):
    assert torch.equal(network(images), logits), images.shape
"""

_FORGOT_THE_IMPORT = """
import sys, torch
for load, path in ((torch.export.load, sys.argv[1]), (torch._inductor.aoti_load_package, sys.argv[2])):
    try:
        load(path)
        sys.exit("loaded without its operators")
    except RuntimeError as error:
        print(error, file=sys.stderr)
"""


@ONE_FORM_AND_THE_REST_SLOW
def test_files_run_in_fresh_processes(tiny, options, tmp_path, quick_inductor):
    engine = make(tiny, **options)
    images = make_images(engine)
    program = torch.export.export(engine.as_module(), (images[:2],), dynamic_shapes=BATCH)
    exported, compiled, cases = (tmp_path / name for name in ("exported.pt2", "compiled.pt2", "cases.pth"))
    torch.export.save(program, exported)
    torch._inductor.aoti_compile_and_package(
        program,
        package_path=str(compiled),
        # What is compiled only calls operators: optimising it costs time alone.
        inductor_configs={"aot_inductor.compile_wrapper_opt_level": "O0"},
    )
    torch.save([(images[:n], engine(images[:n])) for n in COUNTS], cases)
    for script, path in ((_RUN_EXPORTED, exported), (_RUN_COMPILED, compiled)):
        done = fresh_process(script, path, cases)
        assert done.returncode == 0, done.stderr
    done = fresh_process(_FORGOT_THE_IMPORT, exported, compiled)
    assert done.returncode == 0, done.stderr
    # What docs/serving.md quotes.
    assert "effnet_fast.stem_conv_packed_named.default to an operator" in done.stderr
    assert "please import the custom op" in done.stderr.lower()
    assert "Could not find schema for effnet_fast::stem_conv_packed_named" in done.stderr


def test_engines_made_in_inference_mode(tiny):
    """Compilers refuse tensors that were made there."""
    with torch.inference_mode():
        engine = make(tiny)
        network = engine.as_module()
    images = make_images(engine)
    program = torch.export.export(network, (images[:2],), dynamic_shapes=BATCH)
    assert torch.equal(program.module()(images), engine(images))


@pytest.mark.slow
def test_a_whole_network(trained):
    engine = InferenceEngine(trained("efficientnet_b0"), batch_size=2, image_size=64)
    images = torch.randn(5, 3, 64, 64)
    program = torch.export.export(engine.as_module(), (images[:2],), dynamic_shapes=BATCH)
    assert torch.equal(program.module()(images), engine(images))
