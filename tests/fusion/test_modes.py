"""Gradients, tracers and transforms: the original modules run, or ours, and the results are the same."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
import torchvision
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, stack_module_state, vmap
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from effnet_fast.fusion import fuse
from tests.fusion.networks import build, close, counted_programs


def test_gradients_are_the_originals(model, fused, x, caplog) -> None:
    with caplog.at_level(logging.WARNING, "effnet_fast"), counted_programs() as ran:
        for each in (model, fused):
            for _ in range(2):
                each(x).square().mean().backward()
    for a, b in zip(model.parameters(), fused.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
    assert not ran
    assert [record.message for record in caplog.records] == [
        "gradients are enabled, so fused modules run unfused: call the model under torch.inference_mode() or "
        "torch.no_grad()"
    ]


def test_gradients_of_the_input_alone(model, fused, x) -> None:
    given = [x.clone().requires_grad_() for _ in range(2)]
    for each, image in zip((model, fused), given, strict=True):
        each.requires_grad_(False)
        each(image).square().mean().backward()
    assert torch.equal(given[0].grad, given[1].grad)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_it_runs_fused(model, fused, x, mode, caplog) -> None:
    with mode(), counted_programs() as ran:
        assert close(fused(x), model(x))
    assert len(ran) == 7
    assert not caplog.records


def test_a_frozen_model_runs_fused_with_gradients_enabled(model, fused, x) -> None:
    fused.requires_grad_(False)
    with counted_programs() as ran:
        assert close(fused(x), model(x).detach())
    assert len(ran) == 7


def test_forward_mode_gradients(model, fused, x) -> None:
    for each in (model, fused):
        each.requires_grad_(False)
    tangent = torch.randn_like(x)
    with torch.no_grad(), forward_ad.dual_level():
        ours, theirs = (
            forward_ad.unpack_dual(each(forward_ad.make_dual(x, tangent))) for each in (fused, model)
        )
    assert theirs.tangent is not None
    assert torch.equal(ours.tangent, theirs.tangent)


def test_function_transforms(model, fused, x) -> None:
    tangent = torch.randn_like(x)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    with torch.no_grad():
        for a, b in zip(jvp(fused, (x,), (tangent,)), jvp(model, (x,), (tangent,)), strict=True):
            assert torch.equal(a, b)
        assert close(vmap(fused)(torch.stack([x, x + 1])), torch.stack([model(x), model(x + 1)]))
        both = [stack_module_state([each, each]) for each in (fused, model)]
        ours, theirs = (
            vmap(lambda *state, model=model: functional_call(model, state, (x,)))(*state)
            for model, state in zip((fused, model), both, strict=True)
        )
        assert torch.equal(ours, theirs)
    ours, theirs = (
        grad(lambda p, each=each: functional_call(each, p, (x,)).square().mean())(parameters)
        for each in (fused, model)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in parameters)


def test_torch_jit_trace(model, fused, x) -> None:
    traced = torch.jit.trace(fused, x)
    assert close(traced(x), model(x))
    with pytest.raises(torch.jit.frontend.NotSupportedError):
        torch.jit.script(fused)


@pytest.mark.parametrize("name", ["tiny", "mnasnet0_5", "mobilenet_v3_small"])
def test_torch_fx(name, model, x) -> None:
    if name != "tiny":
        model = build(lambda: torchvision.models.get_model(name, num_classes=10))
        x = torch.randn(2, 3, 64, 64)
    fused = fuse(model)
    graphs = [torch.fx.symbolic_trace(each) for each in (fused, model)]
    names = [{str(node.target) for node in graph.graph.nodes if node.op == "call_module"} for graph in graphs]
    assert names[0] == names[1]
    with torch.no_grad():
        assert close(graphs[0](x), model(x))


def test_modes_see_the_originals_operators(model, fused, x) -> None:
    class Doubled(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            result = function(*args, **kwargs or {})
            return result * 2 if function is torch.nn.functional.silu else result

    class Called(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.names = []

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.names.append(str(function))
            return function(*args, **kwargs or {})

    with torch.no_grad():
        with Doubled():
            ours, theirs = fused(x), model(x)
        assert torch.equal(ours, theirs)
        assert not close(theirs, model(x), 1e-3)
        flops, calls = [], []
        for each in (model, fused):
            with FlopCounterMode(display=False) as counter:
                each(x)
            flops.append(counter.get_total_flops())
            with Called() as called:
                each(x)
            calls.append(called.names)
    assert flops[0] == flops[1] > 0
    assert calls[0] == calls[1]
    assert calls[0]


def test_a_default_device_does_not_hinder(model, fused, x) -> None:
    with torch.device("cpu"), torch.no_grad(), counted_programs() as ran:
        assert close(fused(x), model(x))
    assert len(ran) == 7


def test_tensors_of_other_types(model, fused, x) -> None:
    class Mine(torch.Tensor):
        pass

    with torch.no_grad(), counted_programs() as ran:
        result = fused(x.as_subclass(Mine))
        assert type(result) is Mine
        assert torch.equal(result.as_subclass(torch.Tensor), model(x))
        with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as mode:
            assert fused(mode.from_tensor(x)).shape == (2, 10)
    assert not ran


def test_keyword_arguments_and_refusals_are_the_originals(model, fused) -> None:
    x = torch.randn(2, 24, 8, 8)
    with torch.no_grad():
        assert close(fused.blocks[1][1](x=x), model.blocks[1][1](x))
        for wrong in (
            torch.randn(2, 5, 8, 8),
            torch.randn(24, 8, 8),
            torch.randn(24),
            x.long(),
            x.double(),
            None,
        ):
            results = []
            for each in (model, fused):
                try:
                    results.append(each.blocks[1][1](wrong))
                except Exception as error:
                    results.append((type(error), str(error)))
            assert type(results[0]) is type(results[1])
            assert torch.equal(*results) if isinstance(results[0], torch.Tensor) else results[0] == results[1]


def test_meta_tensors(model, fused) -> None:
    fused = copy.deepcopy(fused).to("meta")
    with torch.no_grad():
        assert fused(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 10)


def test_partly_training(model, fused, x) -> None:
    for each in (model, fused):
        each.blocks[1].train()
    with torch.no_grad(), counted_programs() as ran:
        assert close(fused(x), model(x))
    assert len(ran) == 5


def test_grad_checkpointing(model, fused, x) -> None:
    for each in (model, fused):
        each.train()
        each.set_grad_checkpointing()
        torch.manual_seed(0)
        each(x).square().mean().backward()
    for a, b in zip(model.parameters(), fused.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
    for each in (model, fused):
        each.eval()
    with torch.no_grad():
        assert close(fused(x), model(x))


def test_blocks_in_a_module_of_ones_own(model, x) -> None:
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = copy.deepcopy(model.blocks[1][1])
            self.second = copy.deepcopy(model.blocks[1][1])

        def forward(self, x):
            return self.first(x), self.second(self.first(x) * 2)

    two = Two().eval()
    given = torch.randn(1, 24, 9, 9)
    with torch.no_grad(), counted_programs() as ran:
        ours, theirs = fuse(two)(given), two(given)
    assert len(ran) == 3
    assert all(close(a, b) for a, b in zip(ours, theirs, strict=True))
