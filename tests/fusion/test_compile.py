"""torch.compile and torch.export of a fused model: our operators are in the graph, new weights are seen."""

from __future__ import annotations

import copy
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.func import functional_call

import effnet_fast
from effnet_fast.fusion import fuse, repack, unfuse
from tests.fusion.networks import close, counted_programs

ROOT = Path(effnet_fast.__file__).parents[1]


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class Graphs:
    """A backend for torch.compile that keeps what it was given."""

    def __init__(self):
        self.targets: list[set[str]] = []

    def __call__(self, graph, inputs):
        self.targets.append({str(node.target) for node in graph.graph.nodes})
        return graph.forward


def test_the_whole_graph(model, fused, x) -> None:
    graphs = Graphs()
    with torch.no_grad(), counted_programs() as ran:
        assert close(torch.compile(fused, fullgraph=True, backend=graphs)(x), model(x))
    assert len(ran) == 5  # a compiler fuses the stem and the head itself
    assert len(graphs.targets) == 1
    assert "effnet_fast.run_fused.default" in graphs.targets[0]


def test_dynamic_batch_and_new_weights(model, fused) -> None:
    with torch.no_grad():
        compiled = torch.compile(fused, fullgraph=True, backend="aot_eager", dynamic=True)
        for batch in (2, 3, 5):
            x = torch.randn(batch, 3, 32, 32)
            assert close(compiled(x), model(x))
        for each in (model, fused):
            each.blocks[1][1].conv_pw.weight.mul_(2)
            each.blocks[1][1].bn1.eps = 0.5
        assert close(compiled(x), model(x))
        state = {name: value * 0.9 for name, value in model.state_dict().items()}
        for each in (model, fused):
            each.load_state_dict(state)
        assert close(compiled(x), model(x))
        for each in (model, fused):
            conv = each.blocks[1][1].conv_pw
            conv.weight = nn.Parameter(conv.weight * 0.5)
        assert close(compiled(x), model(x))


@pytest.mark.slow
def test_inductor(model, fused, x) -> None:
    with torch.no_grad():
        compiled = torch.compile(fused, fullgraph=True)
        assert close(compiled(x), model(x))
        for each in (model, fused):
            each.blocks[1][1].conv_pw.weight.mul_(2)
        assert close(compiled(x), model(x))


def test_modules_that_change_after_compiling(model, fused, x) -> None:
    compiled = torch.compile(fused, backend="eager")

    def check():
        with torch.no_grad():
            assert close(compiled(x), model(x))

    def both(change):
        for each in (model, fused):
            torch.manual_seed(0)
            change(each)
        check()

    check()
    both(lambda model: model.blocks[1][1].bn2.train())
    both(lambda model: model.eval())
    both(lambda model: model.train())
    both(lambda model: model.eval())
    both(lambda model: setattr(model.blocks[1][1], "se", nn.Identity()))
    both(lambda model: setattr(model.blocks[1][0].bn1, "act", nn.GELU()))
    both(lambda model: setattr(model.blocks[0][0].conv_dw, "bias", nn.Parameter(torch.randn(16))))


def test_weights_that_are_arguments(model, fused, x) -> None:
    parameters = {
        name: p * (0.5 + torch.rand(1)) for name, p in model.state_dict().items() if p.is_floating_point()
    }

    @torch.compile(backend="aot_eager", fullgraph=True)
    def call(parameters, x):
        return functional_call(fused, parameters, x)

    with torch.no_grad(), counted_programs() as ran:
        assert close(call(parameters, x), functional_call(model, parameters, x))
        assert len(ran) == 5
        assert close(fused(x), model(x))


def test_weights_written_in_the_graph(model, fused, x) -> None:
    def step(model, x):
        for parameter in model.parameters():
            parameter.mul_(1.05)
        return model(x)

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        for _ in range(3):
            assert close(compiled(fused, x), step(model, x))
        assert close(fused(x), model(x))


def test_gradients_run_the_original(model, fused, x) -> None:
    graphs = Graphs()
    compiled = torch.compile(fused, fullgraph=True, backend=graphs)
    for each, call in ((model, model), (fused, compiled)):
        call(x).square().mean().backward()
        assert each.conv_stem.weight.grad is not None
    for a, b in zip(model.parameters(), fused.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-6)
    assert "effnet_fast.run_fused.default" not in graphs.targets[0]


def test_copies_are_compiled_for_themselves(model, fused, x) -> None:
    with torch.no_grad():
        for _ in range(3):
            twin = copy.deepcopy(fused)
            twin.blocks[0][0].conv_dw.weight.mul_(torch.rand(1))
            result = torch.compile(twin, backend="eager", fullgraph=True)(x)
            assert close(result, unfuse(twin)(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(model, fused, x, dtype) -> None:
    compiled = torch.compile(fused, backend="aot_eager", fullgraph=True)
    with torch.no_grad(), torch.autocast("cpu", dtype), counted_programs() as ran:
        result, expected = compiled(x), model(x)
    assert len(ran) == 5
    assert result.dtype == expected.dtype
    assert (result - expected).abs().max() <= 0.05 * expected.abs().max()


# torch.export


def operators(program) -> list[str]:
    return [
        str(node.target)
        for node in program.graph.nodes
        if node.op == "call_function" and "effnet_fast" in str(node.target)
    ]


def export(model, x, **arguments):
    with torch.no_grad():
        return torch.export.export(
            model, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},), **arguments
        )


def test_export_has_our_operators_and_any_batch(model, fused, x) -> None:
    program = export(fused, x)
    assert (
        operators(program)
        == ["effnet_fast.mbconv_packed.default"] * 3 + ["effnet_fast.fused_mbconv_packed.default"] * 2
    )
    with torch.no_grad():
        for batch in (1, 2, 7):
            x = torch.randn(batch, 3, 33, 32)
            assert close(program.module()(x), model(x))
        # The exported weights are those of then.
        fused.blocks[1][1].conv_pw.weight.mul_(2)
        assert close(program.module()(x), model(x))


def test_exported_to_another_process(model, fused, x, tmp_path) -> None:
    torch.export.save(export(fused, x), tmp_path / "model.pt2")
    torch.save(x[:1], tmp_path / "x.pt")
    script = (
        "import sys, torch, effnet_fast; folder = sys.argv[1]; torch.set_num_threads(1)\n"
        "model = torch.export.load(folder + '/model.pt2').module()\n"
        "with torch.inference_mode(): torch.save(model(torch.load(folder + '/x.pt')), folder + '/y.pt')\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, cwd=ROOT)
    with torch.no_grad():
        assert close(torch.load(tmp_path / "y.pt"), model(x[:1]))


@pytest.mark.parametrize("change", ["loaded", "exchanged", "copied", "hooked", "half", "gradients", "strict"])
def test_what_cannot_be_exported_fused_is_exported_as_it_is(model, fused, x, caplog, change) -> None:
    for each in (model, fused):
        if change == "loaded":
            each.load_state_dict({name: value * 0.9 for name, value in each.state_dict().items()})
        elif change == "exchanged":
            for module in each.modules():
                if isinstance(module, nn.Conv2d):
                    module.weight = nn.Parameter(module.weight * 0.9)
        elif change == "hooked":
            each.blocks[1][1].bn1.register_forward_hook(lambda module, given, result: result * 2)
        elif change == "half":
            each.bfloat16()
    fused = copy.deepcopy(fused) if change == "copied" else fused
    x = x.bfloat16() if change == "half" else x
    with caplog.at_level(logging.WARNING, "effnet_fast"):
        if change == "gradients":
            program = torch.export.export(fused, (x,))
        else:
            program = export(fused, x, strict=change == "strict")
    assert len(operators(program)) == (4 if change == "hooked" else 0)
    assert "exported unfused" in caplog.text
    with torch.no_grad():
        assert torch.allclose(program.module()(x), model(x), rtol=1e-4, atol=1e-4)
        # And the model itself is as it was.
        with counted_programs() as ran:
            fused(x)
        assert len(ran) == (6 if change == "hooked" else 7)


def test_repack_before_exporting(model, x) -> None:
    fused = fuse(model)
    for each in (model, fused):
        each.load_state_dict({name: value * 0.9 for name, value in each.state_dict().items()})
    fused = copy.deepcopy(fused)
    repack(fused)
    program = export(fused, x)
    assert len(operators(program)) == 5
    with torch.no_grad():
        assert close(program.module()(x), model(x))


@pytest.mark.slow
def test_aot_inductor(model, fused, x, tmp_path) -> None:
    package = torch._inductor.aoti_compile_and_package(
        export(fused, x), package_path=str(tmp_path / "model.pt2")
    )
    compiled = torch._inductor.aoti_load_package(package)
    with torch.no_grad():
        assert close(compiled(x), model(x))
        assert close(compiled(x[:1]), model(x[:1]))
