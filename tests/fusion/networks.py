"""Networks of every library and block kind with living weights, and how a fused one is compared with it."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import efficientnet_pytorch
import timm
import torch
import torchvision
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn

from effnet_fast.fusion import fuse
from effnet_fast.fusion.module import state_of
from effnet_fast.fusion.network import network_of
from effnet_fast.fusion.program import Program
from effnet_fast.fusion.spec import Block, Conv
from effnet_fast.fusion.state import State
from effnet_fast.models import create_model
from effnet_fast.testing import Budget

NORMS = nn.modules.batchnorm._BatchNorm


@torch.no_grad()
def randomise(model: nn.Module, size: int = 64, images: int = 8) -> nn.Module:
    """Random weights, and statistics of random images, moved a little: folding matters everywhere."""
    norms = [module for module in model.modules() if isinstance(module, NORMS)]
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.weight.normal_(0, math.sqrt(2 / math.prod(module.weight.shape[1:])))
            if module.bias is not None:
                module.bias.normal_(0, 0.3)
        elif hasattr(module, "gamma"):
            module.gamma.uniform_(0.5, 1.5)
        elif isinstance(module, (nn.GroupNorm, nn.LayerNorm)):
            module.reset_parameters()
    model.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.weight.uniform_(0.7, 1.3)
        norm.bias.normal_(0, 0.2)
        norm.reset_running_stats()
        norm.momentum = 1.0
        norm.train()
    model(torch.randn(images, 3, size, size))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.running_mean += 0.05 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
        norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.7, 1.4)
    return model.eval()


def build(make: Callable[[], nn.Module], size: int = 64) -> nn.Module:
    """What `make` gives, at most two blocks of a kind in a row (the others repeat them), randomised.

    On the meta device where it can: libraries spend most of their time in initialisation.
    """
    try:
        with torch.device("meta"):
            model = make()
    except NotImplementedError:  # RegNet computes its widths with tensors
        model = make()
    if all(isinstance(module, _RANDOMISED) or _has_no_tensors(module) for module in model.modules()):
        model = model.to_empty(device="cpu")
    else:
        model = make()
    for name in ("blocks", "features", "layers"):
        stages = getattr(model, name, None)
        for index, stage in enumerate(stages if isinstance(stages, nn.Sequential) else ()):
            if type(stage) is nn.Sequential:
                stages[index] = nn.Sequential(
                    *(block for i, block in enumerate(stage) if i < 2 or not _repeats(block))
                )
    return randomise(model, size)


# What `randomise` gives values to.
_RANDOMISED = (nn.Conv2d, nn.Linear, NORMS, nn.GroupNorm, nn.LayerNorm)


def _has_no_tensors(module: nn.Module) -> bool:
    return not (module._parameters.keys() - {"gamma"} or module._buffers)


def _repeats(block: nn.Module) -> bool:
    """Whether it gives what it takes, so that it can be left out."""
    return any(getattr(block, name, False) for name in ("has_skip", "use_res_connect", "apply_residual"))


def _timm(name: str, **arguments) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=40, **arguments)


def _torchvision(name: str) -> Callable[[], nn.Module]:
    return lambda: torchvision.models.get_model(name, num_classes=40)


def _lukemelas(image_size: int | None) -> Callable[[], nn.Module]:
    return lambda: efficientnet_pytorch.EfficientNet.from_name(
        "efficientnet-b0", num_classes=40, image_size=image_size
    )


# One of each kind of block and of each library's way to write it, with the height and width of its images.
MODELS: Mapping[str, tuple[Callable[[], nn.Module], tuple[int, int]]] = {
    "timm_efficientnet_b0": (_timm("efficientnet_b0"), (64, 64)),
    "timm_tf_efficientnet_b0": (_timm("tf_efficientnet_b0"), (72, 64)),
    "timm_efficientnet_lite0": (_timm("efficientnet_lite0"), (65, 71)),
    "timm_tinynet_e": (_timm("tinynet_e"), (64, 64)),
    "timm_mobilenetv2_100": (_timm("mobilenetv2_100"), (64, 64)),
    "timm_mobilenetv3_large_100": (_timm("mobilenetv3_large_100"), (64, 64)),
    "timm_tf_mobilenetv3_small_100": (_timm("tf_mobilenetv3_small_100"), (66, 64)),
    "timm_mnasnet_100": (_timm("mnasnet_100"), (64, 64)),
    "timm_semnasnet_100": (_timm("semnasnet_100"), (64, 64)),
    "timm_efficientnetv2_rw_t": (_timm("efficientnetv2_rw_t"), (64, 64)),
    "timm_tf_efficientnetv2_b0": (_timm("tf_efficientnetv2_b0"), (64, 67)),
    "timm_efficientnet_es": (_timm("efficientnet_es"), (64, 64)),
    "timm_efficientnet_b1_pruned": (_timm("efficientnet_b1_pruned"), (64, 64)),
    "timm_mobilenetv4_conv_small": (_timm("mobilenetv4_conv_small"), (64, 64)),
    "timm_hardcorenas_a": (_timm("hardcorenas_a"), (64, 64)),
    "timm_fbnetc_100": (_timm("fbnetc_100"), (64, 64)),
    "timm_lcnet_050": (_timm("lcnet_050"), (64, 64)),
    "torchvision_efficientnet_b0": (_torchvision("efficientnet_b0"), (64, 64)),
    "torchvision_efficientnet_v2_s": (_torchvision("efficientnet_v2_s"), (64, 64)),
    "torchvision_mobilenet_v2": (_torchvision("mobilenet_v2"), (67, 65)),
    "torchvision_mobilenet_v3_small": (_torchvision("mobilenet_v3_small"), (64, 64)),
    "torchvision_mnasnet0_5": (_torchvision("mnasnet0_5"), (64, 64)),
    "torchvision_regnet_y_400mf": (_torchvision("regnet_y_400mf"), (64, 64)),
    "efficientnet_pytorch_static": (_lukemelas(64), (64, 64)),
    "efficientnet_pytorch_dynamic": (_lukemelas(None), (66, 71)),
    "ours_tf_efficientnet_b0": (lambda: create_model("tf_efficientnet_b0", num_classes=40), (64, 64)),
    "ours_efficientnetv2_b0": (lambda: create_model("efficientnetv2_b0", num_classes=40), (64, 64)),
}


def tiny(seed: int = 3) -> EfficientNet:
    """timm's network with 5 blocks: without and with residual and squeeze-excite, and a dense one."""
    rows = [["ds_r1_k3_s1_e1_c16_se0.25"], ["ir_r2_k5_s2_e4_c24_se0.25"], ["er_r2_k3_s2_e4_c32"]]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = EfficientNet(
            decode_arch_def(rows), num_classes=10, num_features=64, stem_size=16, act_layer=nn.SiLU
        )
        return randomise(model, size=32)


@dataclass
class Run:
    """A call of a fused module, or of a chain's first: `result` is None where it ran unfused."""

    state: State
    owner: nn.Module
    given: Tensor
    result: Tensor | None


@contextlib.contextmanager
def recorded_runs() -> Iterator[list[Run]]:
    """What fused modules do meanwhile, in all threads."""
    runs: list[Run] = []
    run = State.run

    def recording(self: State, owner: nn.Module, x: Tensor) -> Tensor | None:
        result = run(self, owner, x)
        runs.append(Run(self, owner, x, result))
        return result

    State.run = recording
    try:
        yield runs
    finally:
        State.run = run


@contextlib.contextmanager
def counted_programs() -> Iterator[list[Program]]:
    """The programs that run meanwhile: by themselves, in compiled functions or for an exporter."""
    ran: list[Program] = []
    call = Program.__call__

    def counting(self: Program, *args, **kwargs) -> Tensor:
        ran.append(self)
        return call(self, *args, **kwargs)

    Program.__call__ = counting
    try:
        yield ran
    finally:
        Program.__call__ = call


def parts_of(fused: nn.Module) -> dict[int, list[str]]:
    """A state's number -> names of the modules that it computes, in order, for all that is fused."""
    names = {module: name for name, module in fused.named_modules()}
    found = {}
    for module, name in names.items():
        state, network = state_of(module), network_of(module)
        if state is not None:
            found[state.number] = [name]
        for chain in network.chains if network is not None else ():
            found[chain.state.number] = [names[each] for each in chain.modules]
    return found


def close(a: Tensor, b: Tensor, tolerance: float = 2e-5) -> bool:
    """Whether two float32 results of one network agree: another order of summation moves them by 1e-6."""
    alike = a.dtype == b.dtype and a.shape == b.shape
    return alike and bool((a - b).abs().max() <= tolerance * b.abs().max())


def check_parity(model: nn.Module, x: Tensor, dtype: torch.dtype) -> int:
    """Every fused block of `model`, and all of it, are within the numerics contract of the original.

    `model` and `x` are float32; both are rounded to `dtype` first, and the truth starts from that. The number
    of fused blocks is returned.
    """
    low = copy.deepcopy(model).to(dtype)
    exact, fused, x = copy.deepcopy(low).double(), fuse(low), x.to(dtype)
    parts, longest = parts_of(fused), 1
    with torch.no_grad(), recorded_runs() as runs:
        result = fused(x)
    assert {run.state.number for run in runs if run.result is not None} == parts.keys()
    for run in runs:
        names = parts[run.state.number]
        with torch.no_grad():
            r64, rlow = run.given.double(), run.given
            for name in names:
                r64, rlow = exact.get_submodule(name)(r64), low.get_submodule(name)(rlow)
        terms = _terms(run.state.block, run.given)
        Budget(r64, rlow, terms, dtype).assert_within(run.result, names[0])
        longest = max(longest, terms)
        assert run.result.dtype == rlow.dtype
    with torch.no_grad():
        Budget(exact(x.double()), low(x), longest, dtype).assert_within(result, "the network")
    return len(parts)


def _terms(block: Block, x: Tensor) -> int:
    """Terms of the longest single sum in `block`."""
    counts = [x.shape[2] * x.shape[3] if len(block.parts) > len(block.convs) else 1]
    for part in block.parts:
        if isinstance(part, Conv):
            counts.append(part.kernel**2 * (1 if part.is_depthwise else part.in_channels))
        else:
            counts.append(part.in_channels)
    return max(counts)
