"""A fused model is the same modules with the same hooks, and can be copied, saved, changed and unfused."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.modules import module as torch_module

import effnet_fast
from effnet_fast.fusion import fuse, unfuse
from effnet_fast.fusion.fuse import find
from tests.fusion.networks import close, counted_programs, recorded_runs

BLOCK = "blocks.1.1"


def test_the_public_name() -> None:
    assert effnet_fast.fuse is fuse
    assert effnet_fast.unfuse is unfuse


def test_types_stay(model, fused) -> None:
    for (name, ours), theirs in zip(fused.named_modules(), model.modules(), strict=True):
        assert isinstance(ours, type(theirs)), name
        assert type(ours).__name__ == type(theirs).__name__
        assert type(ours).__module__ == type(theirs).__module__
    assert "InvertedResidual[fused]" in repr(fused)


def test_a_copy_is_fused_unless_in_place(model, x) -> None:
    before = {name: type(module) for name, module in model.named_modules()}
    fused = fuse(model)
    assert {name: type(module) for name, module in model.named_modules()} == before
    assert not {id(p) for p in fused.parameters()} & {id(p) for p in model.parameters()}
    expected = copy.deepcopy(model)
    assert fuse(model, inplace=True) is model
    assert not isinstance(model.blocks[1][0], type(None))
    with torch.no_grad(), counted_programs() as ran:
        assert close(model(x), expected(x))
    assert len(ran) == 7


def test_unfuse_gives_the_same_objects_back(model, x) -> None:
    plain = {name: (module, type(module), set(vars(module))) for name, module in model.named_modules()}
    with torch.no_grad():
        expected = model(x)
        fuse(model, inplace=True)(x)
        assert unfuse(model) is model
        assert torch.equal(model(x), expected)
    assert {
        name: (module, type(module), set(vars(module))) for name, module in model.named_modules()
    } == plain
    assert unfuse(model) is model


def test_fusing_twice_changes_nothing(fused, x) -> None:
    types = [type(module) for module in fused.modules()]
    assert fuse(fused) is fused
    assert fuse(fused, inplace=True) is fused
    assert [type(module) for module in fused.modules()] == types
    with torch.no_grad(), counted_programs() as ran:
        fused(x)
    assert len(ran) == 7


def test_what_was_added_is_fused_the_second_time(model, fused, x) -> None:
    extra = copy.deepcopy(model.blocks[1][1])
    for each in (model, fused):
        each.blocks[1].append(copy.deepcopy(extra))
    with torch.no_grad(), counted_programs() as ran:
        assert close(fuse(fused)(x), model(x))
    assert len(ran) == 8


def test_strict(model) -> None:
    fuse(model, strict=True)
    with pytest.raises(ValueError, match=r"1 parts of the model stay unfused: 1: a convolution outside"):
        fuse(nn.Sequential(model, nn.Conv2d(3, 3, 1)), strict=True)


def test_a_shared_block(model, x) -> None:
    for each in (model,):
        each.blocks[1].append(each.blocks[1][1])
    fused = fuse(model)
    assert fused.blocks[1][1] is fused.blocks[1][2]
    with torch.no_grad(), counted_programs() as ran:
        assert close(fused(x), model(x))
    assert len(ran) == 8


# Hooks


@pytest.fixture
def both(model, fused, x):
    """A function: apply `change` to both models, whose results then agree; how many programs ran."""

    def check(change, x=x) -> int:
        for each in (model, fused):
            change(each)
        with torch.no_grad(), counted_programs() as ran:
            result = fused(x)
        with torch.no_grad():
            assert close(result, model(x))
        return len(ran)

    return check


@pytest.mark.parametrize(
    "path", ["", BLOCK, f"{BLOCK}.bn2", f"{BLOCK}.se", "conv_stem", "bn1", "bn2", "bn2.act"]
)
def test_hooks_that_change_what_passes(both, path) -> None:
    calls = []

    def register(model):
        module = model.get_submodule(path)
        module.register_forward_hook(
            lambda module, given, result: calls.append(result.mean()) or result * 1.5
        )
        module.register_forward_pre_hook(
            lambda module, given: calls.append(given[0].mean()) or (given[0] * 0.5,)
        )

    # Fused as before, but for the block or the chain with the hook inside.
    assert both(register) == (7 if path in ("", BLOCK) else 6)
    assert len(calls) == 4
    assert torch.allclose(calls[0], calls[2], atol=1e-5)
    assert torch.allclose(calls[1], calls[3], atol=1e-5)


def test_removed_hooks_leave_no_trace(both) -> None:
    handles = []
    assert (
        both(lambda model: handles.append(model.get_submodule(f"{BLOCK}.bn2").register_forward_hook(print)))
        == 6
    )
    for handle in handles:
        handle.remove()
    assert both(lambda model: None) == 7


@pytest.mark.parametrize(
    "register",
    [torch_module.register_module_forward_hook, torch_module.register_module_forward_pre_hook],
    ids=["hook", "pre_hook"],
)
def test_global_hooks_see_every_module(model, fused, x, register) -> None:
    seen = []
    handle = register(lambda module, *values: seen.append(type(module).__name__))
    try:
        with torch.no_grad(), counted_programs() as ran:
            result, ours = fused(x), seen.copy()
            seen.clear()
            assert torch.equal(model(x), result)
    finally:
        handle.remove()
    assert seen == ours
    assert not ran


def test_each_call_of_a_module_elsewhere_is_its_own(model, fused) -> None:
    """A chain is one only while its network runs: alone, its modules compute what they always did."""
    x, y = torch.randn(1, 3, 8, 8), torch.randn(1, 16, 8, 8)
    with torch.no_grad():
        fused(torch.randn(1, 3, 32, 32))
        assert torch.equal(fused.conv_stem(x), model.conv_stem(x))
        assert torch.equal(fused.bn1(y), model.bn1(y))


def test_a_follower_passes_on_what_its_lead_made_and_nothing_else(both) -> None:
    """A stem that is called twice in its network, with the norm on another tensor between."""

    def exchange(model):
        stem, norm = model.conv_stem, model.bn1
        blocks = model.blocks

        class Again(nn.Module):
            def forward(self, x):
                return blocks(norm(x))

        model.again = Again()
        model.blocks = nn.Sequential(model.again)
        del stem

    both(exchange)


# Modules exchanged after fusing


def _identity(model):
    model.get_submodule(BLOCK).se = nn.Identity()


def _norm(model):
    block = model.get_submodule(BLOCK)
    norm = copy.deepcopy(block.bn1)
    norm.running_var.mul_(3)
    block.bn1 = norm


def _activation(model):
    model.get_submodule(BLOCK).bn1.act = nn.ReLU()


def _unknown_activation(model):
    model.get_submodule(BLOCK).bn1.act = nn.GELU()


def _stem(model):
    torch.manual_seed(0)
    model.conv_stem = nn.Conv2d(3, 16, 5, 2, 2)


def _stem_norm(model):
    model.bn1 = nn.Sequential(nn.BatchNorm2d(16), nn.Tanh()).eval()


def _block(model):
    torch.manual_seed(0)
    model.blocks[1][1] = nn.Conv2d(24, 24, 3, padding=1)


def _forward(model):
    block = model.get_submodule(BLOCK)
    before = block.forward
    block.forward = lambda x: before(x) * 2


def _inner_forward(model):
    module = model.get_submodule(f"{BLOCK}.conv_pw")
    before = module.forward
    module.forward = lambda x: before(x) * 2


def _stem_forward(model):
    before = model.conv_stem.forward
    model.conv_stem.forward = lambda x: before(x) * 2


def _drop_path(model):
    model.get_submodule(BLOCK).drop_path = nn.Threshold(0.1, 3.0)


@pytest.mark.parametrize(
    ("change", "programs"),
    [
        (_identity, 6),  # a new module trains
        (_norm, 7),
        (_activation, 6),
        (_unknown_activation, 6),
        (_stem, 6),
        (_stem_norm, 6),
        (_block, 6),
        (_forward, 6),
        (_inner_forward, 6),
        (_stem_forward, 6),
        (_drop_path, 6),
    ],
)
@pytest.mark.parametrize("called", [True, False], ids=["called", "fresh"])
def test_modules_exchanged_after_fusing(both, change, programs, called) -> None:
    if called:
        both(lambda model: None)
    assert both(change) == programs
    assert both(lambda model: None) == programs
    trains = change in (_identity, _activation)
    assert both(lambda model: model.eval()) == programs + trains


def test_exchanged_modules_are_read_again_by_find(fused) -> None:
    _unknown_activation(fused)
    reasons = {found.path: found.reason for found in find(fused)}
    assert "GELU" in reasons[BLOCK]


# Copies


def _pickled(model):
    return pickle.loads(pickle.dumps(model))


def _saved(model):
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, _pickled, _saved, copy.copy])
def test_copies_are_fused_and_their_own(model, fused, x, copied) -> None:
    twin = copied(fused)
    assert type(twin) is type(fused)
    assert not any("effnet_fast" in name for name in twin.state_dict())
    with torch.no_grad(), counted_programs() as ran:
        assert close(twin(x), model(x))
        assert len(ran) == 7
        for each in (model, twin):
            each.blocks[1][1].conv_pw.weight.mul_(2)
        assert close(twin(x), model(x))
        # A shallow copy shares its modules.
        assert close(fused(x), model(x)) == (copied is copy.copy)
        twin_block = copied(fused.blocks[1][1])
        given = torch.randn(1, 24, 9, 9)
        assert close(twin_block(given), fused.blocks[1][1](given))
    unfuse(copy.deepcopy(twin))


def test_a_saved_model_in_another_process(model, fused, x, tmp_path) -> None:
    torch.save(fused, tmp_path / "model.pt")
    torch.save(x, tmp_path / "x.pt")
    program = (
        "import sys, torch; folder = sys.argv[1]; torch.set_num_threads(1)\n"
        "model = torch.load(folder + '/model.pt', weights_only=False)\n"
        "with torch.inference_mode(): y = model(torch.load(folder + '/x.pt'))\n"
        "torch.save((y, 'effnet_fast' in sys.modules), folder + '/y.pt')\n"
    )
    root = Path(effnet_fast.__file__).parents[1]
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, cwd=root)
    result, imported = torch.load(tmp_path / "y.pt")
    assert imported
    with torch.no_grad():
        assert close(result, model(x))


def _in_process(model, x, queue) -> None:
    torch.set_num_threads(1)
    with torch.inference_mode():
        queue.put(model(x).tolist())


@pytest.mark.slow
def test_a_spawned_process(model, fused, x) -> None:
    context = torch.multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=_in_process, args=(fused, x, queue))
    process.start()
    result = torch.tensor(queue.get())
    process.join()
    with torch.no_grad():
        assert close(result, model(x))


# Several devices and threads


def test_replicas_of_data_parallel_run_unfused(model, fused, x) -> None:
    """As torch.nn.parallel.replicate makes them, without devices: shallow copies, tensors as attributes."""
    with torch.no_grad():
        fused(x)
    scaled = {name: p.detach() * 2 for name, p in fused.named_parameters()}
    replicas = {name: module._replicate_for_data_parallel() for name, module in fused.named_modules()}
    for name, replica in replicas.items():
        for child in replica._modules:
            replica._modules[child] = replicas[f"{name}.{child}" if name else child]
        for key in fused.get_submodule(name)._parameters:
            tensor = scaled.get(f"{name}.{key}")
            if tensor is None:
                replica._parameters[key] = None
            else:
                setattr(replica, key, tensor)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
        with recorded_runs() as runs:
            assert torch.equal(replicas[""](x), model(x))
    assert all(run.result is None for run in runs)


def test_data_parallel_without_devices(model, fused, x) -> None:
    with torch.no_grad():
        assert close(nn.DataParallel(fused)(x), model(x))


@pytest.mark.parametrize("called", [True, False], ids=["called", "fresh"])
def test_threads(model, fused, called) -> None:
    fused = fused if called else copy.deepcopy(fused)
    images = [torch.randn(1 + i % 2, 3, 32 + 8 * i, 32) for i in range(4)]
    with torch.no_grad():
        expected = [model(image) for image in images]
    start = threading.Barrier(4)
    wrong: list[object] = []

    def work(index: int) -> None:
        try:
            start.wait()
            with torch.inference_mode():
                for _ in range(10):
                    if not close(fused(images[index]), expected[index]):
                        wrong.append(index)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.slow
def test_distributed_data_parallel(model, fused, x, tmp_path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        ours, theirs = (nn.parallel.DistributedDataParallel(each) for each in (fused, model))
        for each in (ours, theirs):
            each.train()
            each(x).square().mean().backward()
            torch.optim.SGD(each.parameters(), lr=0.01).step()
            each.eval()
        with torch.no_grad(), counted_programs() as ran:
            assert close(ours(x), theirs(x))
        assert len(ran) == 7
    finally:
        torch.distributed.destroy_process_group()
