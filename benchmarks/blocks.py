"""`benchmarks blocks`: each distinct MBConv block by itself, checked, then timed in the forms it can take.

The forms are those of this project, as three kernels and as one, and stock PyTorch's sequence of operators.
All of them are held to the numerics contract of `mbconv`, whose output has the storage dtype in every form.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.block_calls import BlockCalls
from benchmarks.cases import DTYPES, describe_model
from benchmarks.contest import ContestRunner, judge
from benchmarks.ideal import ideal_seconds, share_of_peak
from benchmarks.layers import images_of
from benchmarks.progress import Reporter
from benchmarks.rows import ERROR, OK
from benchmarks.runner import Settings
from benchmarks.subject import DISTINCT_IMAGES, rows_of_batch
from benchmarks.unfused import UnfusedBlock, compiled_call
from effnet_fast.inference import fold, network_layers
from effnet_fast.inference.cost import work
from effnet_fast.inference.layers import Layer, block_operators
from effnet_fast.measure import Peaks
from effnet_fast.models import create_model
from effnet_fast.ops.geometry import allocate
from effnet_fast.ops.schemas import OPERATORS
from effnet_fast.ops.validation import check
from effnet_fast.testing import Expectation, make_args

#: Name -> label of everybody who computes a block, stock PyTorch first.
STOCK = {"eager": "eager NHWC", "compiled": "torch.compile"}
OURS = {"three-kernels": "three kernels", "mbconv": "one kernel"}

BACKEND = "cpu"


@dataclass(frozen=True)
class BlockCase:
    """An MBConv block of `model`, which has `count` like it, at a batch and a dtype.

    `layers` are its operators in the three-kernel plan.
    """

    model: str
    layers: tuple[Layer, ...]
    count: int
    batch: int
    dtype: str

    @property
    def name(self) -> str:
        return self.layers[0].block

    @property
    def key(self) -> str:
        return f"{self.model}/{self.name}/{self.batch}/{self.dtype}"

    @property
    def depthwise(self) -> Layer:
        return self.layers[-2]

    @property
    def expanded(self) -> int:
        return self.depthwise.y.shape[0]

    @property
    def shape(self) -> str:
        """Channels in, inside and out, kernel, stride and size of the input."""
        channels, height, width = self.layers[0].x.shape
        stride = f"/{self.depthwise.stride}" if self.depthwise.stride != 1 else ""
        inside = f"{self.expanded}>" if len(self.layers) == 3 else ""
        out = self.layers[-1].y.shape[0]
        return f"{channels}>{inside}{out} k{self.depthwise.kernel}{stride} @{height}x{width}"

    @property
    def gmacs(self) -> float:
        """1e9 multiply-adds of one call."""
        storage = DTYPES[self.dtype]
        return sum(work(layer, self.batch, storage, storage).macs for layer in self.layers) / 1e9

    def ideal_ms(self, peaks: Peaks) -> float:
        """Milliseconds of one call at the peaks of the machine."""
        storage = DTYPES[self.dtype]
        return 1e3 * sum(ideal_seconds(layer, self.batch, storage, storage, peaks) for layer in self.layers)

    def record(self) -> dict[str, object]:
        """Columns of the result file."""
        return {
            "model": self.model,
            "block": self.name,
            "shape": self.shape,
            "blocks": self.count,
            "batch": self.batch,
            "dtype": self.dtype,
            "gmacs": round(self.gmacs, 6),
        }

    def arguments(self, device: str = "cpu") -> list[Any]:
        """Arguments of `mbconv` in schema order; few images differ, as speed does not depend on them."""
        first, depthwise, project = self.layers[0], self.depthwise, self.layers[-1]
        channels, height, width = first.x.shape
        without = [] if len(self.layers) == 3 else ["w_expand", "b_expand"]
        without += [] if depthwise.squeeze else ["w1", "b1", "w2", "b2"]
        args = make_args(
            "mbconv",
            dtype=DTYPES[self.dtype],
            device=device,
            without=without,
            n=min(self.batch, DISTINCT_IMAGES),
            c=channels, h=height, w=width, m=self.expanded, o=project.y.shape[0], k=depthwise.kernel,
            s=depthwise.squeeze or 1, stride=depthwise.stride, padding=depthwise.padding,
            activation=depthwise.activation, se_activation=depthwise.se_activation,
            gate=depthwise.gate_function, residual=project.residual is not None,
        )  # fmt: skip
        x, *rest = images_of("mbconv", args, rows_of_batch(self.batch))
        return [x.contiguous(memory_format=torch.channels_last), *rest]


@functools.cache
def mbconv_blocks(model: str) -> tuple[tuple[Layer, ...], ...]:
    """The layers of every MBConv block of `model` at its own resolution, in the order of the network."""
    size, _ = describe_model(model)
    with torch.device("meta"):
        network = fold(create_model(model).eval())
    blocks = block_operators(network_layers(network, (size, size)))
    # `benchmarks ops` has stem, head, FusedMBConv and blocks of one convolution
    return tuple(
        layers for layers in blocks if any(layer.operator.startswith("depthwise_conv") for layer in layers)
    )


@functools.cache
def distinct_blocks(model: str) -> tuple[tuple[tuple[Layer, ...], int], ...]:
    """The MBConv blocks of `model` at its own resolution, each with the number of blocks like it."""
    found: dict[tuple, list[tuple[Layer, ...]]] = {}
    for layers in mbconv_blocks(model):
        found.setdefault(_work_of(layers), []).append(layers)
    return tuple((blocks[0], len(blocks)) for blocks in found.values())


def _work_of(layers: tuple[Layer, ...]) -> tuple:
    """Equal for blocks that are the same calls."""
    return tuple(
        (layer.operator, layer.x.shape, layer.y.shape, layer.activation, layer.kernel, layer.stride,
         layer.padding, layer.residual is None, layer.squeeze, layer.se_activation, layer.gate_function)
        for layer in layers
    )  # fmt: skip


def named_block(model: str, name: str, batch: int, dtype: str) -> BlockCase:
    """The block of `model` that is called `name`, as in `model.named_modules()`.

    Raises: ValueError with the names of all MBConv blocks where there is none of that name.
    """
    blocks = mbconv_blocks(model)
    for layers in blocks:
        if layers[0].block == name:
            count = sum(_work_of(other) == _work_of(layers) for other in blocks)
            return BlockCase(model, layers, count, batch, dtype)
    names = ", ".join(layers[0].block for layers in blocks) or "none"
    raise ValueError(f"--block: {model} has no MBConv block {name!r}; its MBConv blocks: {names}")


def block_cases(model: str, batches: Sequence[int], dtypes: Sequence[str]) -> list[BlockCase]:
    """Every distinct block at every batch and dtype, in the order of the network."""
    return [
        BlockCase(model, layers, count, batch, dtype)
        for layers, count in distinct_blocks(model)
        for batch in batches
        for dtype in dtypes
    ]


class BlockContest:
    """One block with everybody who computes it made ready; outputs and maps between kernels are given.

    `stock` are the names of those that are stock PyTorch's; all are held to one contract.
    """

    stock: Collection[str] = tuple(STOCK)

    def __init__(self, case: BlockCase, device: str = "cpu") -> None:
        self.case, self.device = case, device
        self.arguments = case.arguments(device)
        row = OPERATORS["mbconv"]
        (self.output,) = allocate(row, *check(row, "", self.arguments))
        self._rows = torch.tensor(sorted({0, case.batch - 1}))
        self._expectation = Expectation.of("mbconv", images_of("mbconv", self.arguments, self._rows))

    def prepare(self, peer: str, row: dict[str, object]) -> Callable[[], object]:
        """What `peer` runs, called once; `row` gets its verdict on the first and the last image."""
        call = self._stock(peer) if peer in self.stock else self._ours(peer)
        self.output.fill_(float("nan"))
        y = call()
        judge(self._expectation.compare(y[self._rows.to(y.device)]), row)
        return call

    def _ours(self, peer: str) -> Callable[[], Tensor]:
        calls = BlockCalls(self.arguments, self.output, BACKEND)
        return calls.three_kernels() if peer == "three-kernels" else calls.whole()

    def _stock(self, peer: str) -> Callable[[], Tensor]:
        module, x = UnfusedBlock(self.arguments).eval(), self.arguments[0]
        if peer == "compiled":
            return compiled_call(module, [x], None)

        def call() -> Tensor:
            with torch.inference_mode():
                return module(x)

        return call


class BlockRunner(ContestRunner):
    """Contests of blocks; with `peaks`, rows say how much of them is reached."""

    def __init__(self, settings: Settings, reporter: Reporter, peaks: Peaks | None) -> None:
        super().__init__(settings, reporter)
        self.peaks = peaks

    def open(self, case: BlockCase) -> BlockContest:
        return BlockContest(case)

    def new_row(self, case: BlockCase, peer: str) -> dict[str, object]:
        return new_row(case, peer)

    def complete(self, contest: BlockContest, row: dict[str, object]) -> None:
        ideal = None if self.peaks is None else contest.case.ideal_ms(self.peaks)
        row["ideal_ms"] = None if ideal is None else round(ideal, 6)
        if row["status"] == OK:
            share = share_of_peak(ideal, row["median_ms"])
            row["of_peak"] = None if share is None else round(share, 4)


def new_row(case: BlockCase, peer: str) -> dict[str, object]:
    """A row without result."""
    return {
        "case": case.key,
        **case.record(),
        "peer": peer,
        "label": {**STOCK, **OURS}[peer],
        "group": "stock" if peer in STOCK else "ours",
        "status": ERROR,
        "reason": "",
    }


def case_title(case: BlockCase) -> str:
    """One line naming a case."""
    return f"{case.model} {case.name}, batch {case.batch}, {case.dtype}"
