"""Weights of a fused model: their names are the original's, and whatever changes them changes its results."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parametrize, prune
from torch.optim.swa_utils import AveragedModel

from effnet_fast.fusion import fuse, repack
from tests.fusion.networks import close, counted_programs, tiny


@pytest.fixture
def agree(model, fused, x):
    """A function: change both models by it, and they still agree. The fused one has run before."""
    with torch.no_grad():
        assert close(fused(x), model(x))

    def check(change=lambda model: None, programs: int | None = 7, moves: bool = True) -> None:
        with torch.no_grad():
            before = model(x)
        for each in (model, fused):
            torch.manual_seed(1)
            change(each)
        with torch.no_grad(), counted_programs() as ran:
            result = fused(x)
        with torch.no_grad():
            expected = model(x)
        assert close(result, expected)
        assert not moves or not close(expected, before, 1e-3)
        assert programs is None or len(ran) == programs

    return check


def test_state_dict_is_the_originals(model, fused) -> None:
    ours, theirs = fused.state_dict(), model.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    for kind in ("named_parameters", "named_buffers", "named_modules", "named_children"):
        assert [name for name, _ in getattr(fused, kind)()] == [name for name, _ in getattr(model, kind)()]


def test_state_dicts_load_both_ways(model, x) -> None:
    other = tiny(seed=11)
    fused = fuse(model)
    with torch.no_grad():
        fused(x)
        fused.load_state_dict(other.state_dict())
        assert close(fused(x), other(x))
        model.load_state_dict(fused.state_dict())
        assert torch.equal(model(x), other(x))
        fused.load_state_dict(tiny(seed=12).state_dict(), assign=True)
        assert close(fused(x), tiny(seed=12)(x))


@pytest.mark.parametrize("foreach", [False, True])
def test_optimizer_step(agree, x, foreach) -> None:
    def step(model):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, foreach=foreach)
        model(x).square().mean().backward()
        optimizer.step()

    agree(step)
    agree(step)


def test_fused_optimizer_step(agree, x) -> None:
    def step(model):
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
        model(x).square().mean().backward()
        optimizer.step()

    agree(step)


BLOCK = "blocks.1.1"


@pytest.mark.parametrize(
    "name",
    [
        "conv_stem.weight",
        "bn1.running_var",
        "conv_head.weight",
        "bn2.bias",
        f"{BLOCK}.conv_pw.weight",
        f"{BLOCK}.bn2.running_mean",
        f"{BLOCK}.bn3.running_var",
        f"{BLOCK}.se.conv_reduce.bias",
        f"{BLOCK}.se.conv_expand.weight",
        "blocks.2.0.conv_exp.weight",
    ],
)
def test_tensors_written_in_place_and_exchanged(agree, name) -> None:
    path, _, last = name.rpartition(".")

    def write(model):
        with torch.no_grad():
            getattr(model.get_submodule(path), last).mul_(torch.rand(1) + 2).add_(0.1)

    def exchange(model):
        module = model.get_submodule(path)
        new = getattr(module, last).detach() * 0.3 + 0.2
        setattr(module, last, nn.Parameter(new) if last in ("weight", "bias") else new)

    agree(write)
    agree(exchange)


def test_eps(agree) -> None:
    agree(lambda model: setattr(model.get_submodule(BLOCK).bn2, "eps", 2.0))
    agree(lambda model: setattr(model.bn1, "eps", 2.0))


def test_a_bias_that_comes_and_goes(agree) -> None:
    def add(model):
        conv = model.get_submodule(BLOCK).conv_pw
        conv.bias = nn.Parameter(torch.randn(conv.out_channels))

    def remove(model):
        model.get_submodule(BLOCK).conv_pw.bias = None

    agree(add, programs=None)
    agree(programs=7, moves=False)
    agree(remove, programs=None)
    agree(programs=7, moves=False)


def test_writes_through_data_need_repack(model, fused, x) -> None:
    with torch.no_grad():
        before = fused(x)
        for each in (model, fused):
            each.get_submodule(BLOCK).conv_pw.weight.data.mul_(2)
            each.conv_stem.weight.data.mul_(2)
        assert torch.equal(fused(x), before)
        repack(fused)
        assert close(fused(x), model(x))
        assert not close(before, model(x), 1e-3)


def test_a_changed_attribute_needs_repack(model, fused) -> None:
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        fused(x)
        for each in (model, fused):
            conv = each.blocks[2][0].conv_exp
            conv.stride = (1, 1)
        repack(fused)
        assert close(fused(x), model(x))


def test_memory_that_is_freed_and_given_out_again(model, fused, x) -> None:
    """`tensor.data = other` frees a tensor's memory without a trace; the next may get the same address."""
    weights = [each.get_submodule(BLOCK).conv_dw.weight for each in (model, fused)]
    with torch.no_grad():
        for _ in range(12):
            fused(x)
            weights[1].data = torch.randn(weights[1].shape)
            weights[1].data = torch.randn(weights[1].shape)
            weights[0].data = weights[1].data.clone()
            assert close(fused(x), model(x))


def test_functional_call_with_temporary_tensors(model, fused, x) -> None:
    """Addresses of the tensors before are given out again."""
    with torch.no_grad(), counted_programs() as ran:
        for step in range(8):
            torch.manual_seed(step)
            changed = {name: p * (0.5 + torch.rand(1)) for name, p in model.named_parameters()}
            assert close(functional_call(fused, changed, x), functional_call(model, changed, x))
            del changed
        assert len(ran) == 7 * 8
        assert close(fused(x), model(x))


def test_inference_tensors(model, x) -> None:
    """They count no versions, so what is made of them cannot be trusted; fuse() makes normal ones."""
    with torch.inference_mode():
        made_there = copy.deepcopy(model)
        fused, in_place = fuse(made_there), fuse(copy.deepcopy(model), inplace=True)
        with counted_programs() as ran:
            assert close(fused(x), model(x))
        assert len(ran) == 7
        in_place(x)
        for each in (model, fused, in_place):
            if each is model:
                continue
            each.get_submodule(BLOCK).conv_pw.weight.mul_(2)
    with torch.no_grad():
        model.get_submodule(BLOCK).conv_pw.weight.mul_(2)
        assert close(fused(x), model(x))
        assert close(in_place(x), model(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_and_back(model, fused, x, dtype) -> None:
    for each in (model, fused):
        each.to(dtype)
    with torch.no_grad(), counted_programs() as ran:
        expected, result = model(x.to(dtype)), fused(x.to(dtype))
        assert len(ran) == 7
        assert result.dtype == dtype
        truth = copy.deepcopy(model).double()(x.to(dtype).double())
        assert (result - truth).abs().max() <= 2 * (expected - truth).abs().max() + torch.finfo(dtype).eps
        for each in (model, fused):
            each.float()
        assert close(fused(x), model(x))
        with pytest.raises(RuntimeError):
            fused(x.to(dtype))


def test_half_and_back_without_a_call(model, fused, x) -> None:
    with torch.no_grad():
        fused(x)
        for _ in range(4):
            for each in (model, fused):
                each.bfloat16().float()
            assert close(fused(x), model(x), 2e-5)


def test_double_runs_unfused(agree, model, fused, x) -> None:
    model.double(), fused.double()
    with torch.no_grad(), counted_programs() as ran:
        assert torch.equal(fused(x.double()), model(x.double()))
    assert not ran
    model.float(), fused.float()
    agree(moves=False)


def test_channels_last_model(agree) -> None:
    agree(lambda model: model.to(memory_format=torch.channels_last), moves=False)


def test_training_step_and_back(agree, model, fused, x) -> None:
    for each in (model, fused):
        each.train()
        torch.manual_seed(0)
        optimizer = torch.optim.SGD(each.parameters(), lr=0.01)
        each(x).square().mean().backward()
        optimizer.step()
        each.eval()
    for a, b in zip(model.state_dict().values(), fused.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    agree(moves=False)


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("path", ["", BLOCK, f"{BLOCK}.bn2", "bn1"])
def test_statistics_updated_by_forward_alone(agree, x, counted, path) -> None:
    """A norm's kernel writes them without counting versions."""

    def discount(model):
        for module in model.modules():
            if hasattr(module, "num_batches_tracked"):
                module.num_batches_tracked = None
                module.momentum = 0.5

    def update(model):
        model.get_submodule(path).train()
        with torch.no_grad():
            model(x * 3 + 1)
        model.eval()

    if not counted:
        agree(discount, programs=None, moves=False)
        agree(programs=7, moves=False)
    agree(update)
    agree(programs=7, moves=False)


def test_averaged_model(model, fused, x) -> None:
    averaged = AveragedModel(fused, use_buffers=True)
    with torch.no_grad():
        for value in (1.5, 0.5):
            for parameter in fused.parameters():
                parameter.mul_(value)
            averaged.update_parameters(fused)
        plain = AveragedModel(model, use_buffers=True)
        for value in (1.5, 0.5):
            for parameter in model.parameters():
                parameter.mul_(value)
            plain.update_parameters(model)
        averaged.eval(), plain.eval()
        assert close(averaged(x), plain(x))


def test_parametrised_and_pruned(agree) -> None:
    class Double(nn.Module):
        def forward(self, weight):
            return weight * 2

    def conv(model):
        return model.get_submodule(BLOCK).conv_pw

    agree(lambda model: parametrize.register_parametrization(conv(model), "weight", Double()), programs=6)
    agree(
        lambda model: parametrize.remove_parametrizations(conv(model), "weight"), programs=None, moves=False
    )
    agree(programs=7, moves=False)
    agree(lambda model: prune.l1_unstructured(conv(model), "weight", 0.5), programs=6)
    agree(lambda model: prune.remove(conv(model), "weight"), programs=None, moves=False)
    agree(programs=7, moves=False)


def test_channels_cut_from_the_weights(agree) -> None:
    """Their shapes are not what the modules' attributes say any more."""

    def cut(model):
        block = model.get_submodule(BLOCK)
        kept = block.conv_pw.out_channels - 8
        for module, axis in ((block.conv_pw, 0), (block.conv_dw, 0), (block.conv_pwl, 1)):
            module.weight = nn.Parameter(module.weight.detach().narrow(axis, 0, kept).clone())
        block.conv_dw.groups = kept
        for norm in (block.bn1, block.bn2):
            for name in ("weight", "bias"):
                setattr(norm, name, nn.Parameter(getattr(norm, name).detach()[:kept].clone()))
            for name in ("running_mean", "running_var"):
                setattr(norm, name, getattr(norm, name)[:kept].clone())
        reduce, expand = block.se.conv_reduce, block.se.conv_expand
        reduce.weight = nn.Parameter(reduce.weight.detach()[:, :kept].clone())
        expand.weight = nn.Parameter(expand.weight.detach()[:kept].clone())
        expand.bias = nn.Parameter(expand.bias.detach()[:kept].clone())

    agree(cut, programs=6)
