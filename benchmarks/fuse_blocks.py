"""`benchmarks fuse --blocks`: every distinct block that is fused, against its own modules at its own input.

The modules run as they would inside of a fused model that leaves them alone: on maps in channels_last memory.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from benchmarks.cases import DTYPES
from benchmarks.contest import ContestRunner, judge
from benchmarks.fuse_models import FuseModel, prepared
from benchmarks.rows import ERROR
from benchmarks.subject import DISTINCT_IMAGES, rows_of_batch
from effnet_fast.backends import Backend
from effnet_fast.fusion.calls import calls_of
from effnet_fast.fusion.fuse import find
from effnet_fast.fusion.parts import class_name
from effnet_fast.fusion.program import bind
from effnet_fast.fusion.readers import CHAINS, READERS
from effnet_fast.fusion.spec import Block, Conv
from effnet_fast.testing import Budget

PEERS = {"eager": "eager NHWC", "fused": "fused"}


@dataclass(frozen=True)
class FusedBlockCase:
    """A block of `model` at `path`, with inputs of `size` = (height, width); there are `count` like it."""

    model: FuseModel
    path: str
    size: tuple[int, int]
    shape: str
    count: int
    batch: int
    dtype: str
    memory_format: ClassVar[torch.memory_format] = torch.channels_last

    @property
    def key(self) -> str:
        return f"{self.model.name}/{self.path}/{self.batch}/{self.dtype}"

    def record(self) -> dict[str, object]:
        """Columns of the result file."""
        return {
            "model": self.model.name,
            "block": self.path,
            "shape": self.shape,
            "blocks": self.count,
            "batch": self.batch,
            "dtype": self.dtype,
        }

    def subject(self, seed: int) -> tuple[nn.Module, Block]:
        """The block's own modules with weights of the dtype, and what they compute."""
        network = copy.deepcopy(prepared(self.model, seed)).to(DTYPES[self.dtype])
        block = next(item.block for item in find(network) if item.path == self.path)
        return _own_modules(network, self.path), block


def case_title(case: FusedBlockCase) -> str:
    return f"{case.model.name} {case.path}: {case.shape}, batch {case.batch}, {case.dtype}"


def shape_of(block: Block, size: tuple[int, int]) -> str:
    """What the time of a block depends on, as a line: its operators, parts and the size of its input."""
    parts = []
    for part in block.parts:
        if isinstance(part, Conv):
            kind = "dw" if part.is_depthwise else ""
            stride = f"/{part.stride}" if part.stride != 1 else ""
            parts.append(f"{kind}{part.kernel}x{part.kernel}{stride} {part.out_channels} {part.activation}")
        else:
            parts.append(f"se {part.reduce.out_channels} {part.gate}")
    operators = " ".join(call.operator for call in calls_of(block))
    residual = " + x" if block.residual else ""
    height, width = size
    return f"{operators}: {block.in_channels}x{height}x{width} > {' > '.join(parts)}{residual}"


def block_cases(models: list[FuseModel], batch: int, dtypes: list[str]) -> list[FusedBlockCase]:
    """Every distinct block of `models`, named where it is met first."""
    first: dict[str, tuple[FuseModel, str, tuple[int, int]]] = {}
    count: dict[str, int] = {}
    for model in models:
        for path, block, size in _blocks(model):
            shape = shape_of(block, size)
            first.setdefault(shape, (model, path, size))
            count[shape] = count.get(shape, 0) + 1
    return [
        FusedBlockCase(model, path, size, shape, count[shape], batch, dtype)
        for shape, (model, path, size) in first.items()
        for dtype in dtypes
    ]


def _blocks(model: FuseModel) -> Iterator[tuple[str, Block, tuple[int, int]]]:
    """Path, block and size of the input of everything in `model` that is fused."""
    with torch.device("meta"):
        network = model.make().eval()
    found = {item.path: item.block for item in find(network) if item.block is not None}
    sizes: dict[str, tuple[int, int]] = {}
    for path in found:
        network.get_submodule(path).register_forward_pre_hook(
            lambda _, args, path=path: sizes.update({path: tuple(args[0].shape[2:])})
        )
    with torch.inference_mode():
        network(torch.empty(1, 3, model.image_size, model.image_size, device="meta"))
    return ((path, block, sizes[path]) for path, block in found.items())


class ModulesCase(Protocol):
    """Modules, the block that they compute, and what both are called with."""

    size: tuple[int, int]
    batch: int
    dtype: str
    memory_format: torch.memory_format

    @property
    def key(self) -> str: ...

    def record(self) -> dict[str, object]: ...

    def subject(self, seed: int) -> tuple[nn.Module, Block]: ...


class FusedBlockContest:
    """One block, and its modules."""

    def __init__(self, case: ModulesCase, seed: int) -> None:
        self.case, dtype = case, DTYPES[case.dtype]
        self.modules, block = case.subject(seed)
        generator = torch.Generator().manual_seed(0)
        self._distinct = min(DISTINCT_IMAGES, case.batch)
        images = torch.randn(self._distinct, block.in_channels, *case.size, generator=generator).to(dtype)
        with torch.inference_mode():
            r64 = copy.deepcopy(self.modules).double()(images.double())
            low = self.modules(images)
        # The longest sum behind a value is that of one convolution's weights for one channel; a
        # squeeze-excite's two layers are such, too.
        convolutions = [module for module in self.modules.modules() if isinstance(module, nn.Conv2d)]
        terms = max(conv.weight[0].numel() for conv in convolutions)
        self._budget = Budget(r64.clone(), low.clone(), terms if dtype == torch.float32 else 1, dtype)
        self._x = images[rows_of_batch(case.batch)].contiguous(memory_format=case.memory_format)
        self._program = bind(block, dtype, torch.device("cpu"), Backend.AUTO)

    def prepare(self, peer: str, row: dict[str, object]) -> Callable[[], Tensor]:
        """What `peer` runs, called once; `row` gets its verdict."""
        compute, x = self.modules if peer == "eager" else self._program, self._x

        def call() -> Tensor:
            with torch.inference_mode():
                return compute(x)

        judge({"y": self._budget.compare(call()[: self._distinct])}, row)
        return call


def _own_modules(network: nn.Module, path: str) -> nn.Module:
    """What the block at `path` is without fusing: a module, or what its network calls in turn from there."""
    module = network.get_submodule(path)
    if class_name(module) in READERS:
        return module
    for name, owner in network.named_modules():
        reader = CHAINS.get(class_name(owner))
        for chain in reader(owner).found if reader else ():
            if path == (f"{name}.{chain.lead}" if name else chain.lead):
                return nn.Sequential(*map(owner.get_submodule, (chain.lead, *chain.followers)))
    raise ValueError(f"nothing is fused at {path!r}")


class FusedBlockRunner(ContestRunner):
    """Contests of blocks, in this process."""

    labels: Mapping[str, str] = PEERS

    def open(self, case: ModulesCase) -> FusedBlockContest:
        self.reporter.step("weights and float64 maps")
        return FusedBlockContest(case, self.settings.seed)

    def new_row(self, case: ModulesCase, peer: str) -> dict[str, object]:
        return {
            "case": case.key,
            **case.record(),
            "peer": peer,
            "label": self.labels[peer],
            "group": "ours" if peer == "fused" else "eager",
            "status": ERROR,
            "reason": "",
        }

    def complete(self, contest: FusedBlockContest, row: dict[str, object]) -> None:
        """Everything is in the row already."""
