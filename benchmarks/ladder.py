"""`benchmarks ops --ladder`: one MBConv block in rungs, from stock PyTorch to one kernel.

Each rung fuses more than the one before it, and all of them compute the same block from the same weights.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.block_calls import BlockCalls
from benchmarks.blocks import BlockCase, BlockContest, mbconv_blocks, named_block
from benchmarks.cases import DTYPES
from benchmarks.contest import ContestRunner, Row
from benchmarks.ladder_bytes import rung_bytes
from benchmarks.ladder_floor import floor
from benchmarks.limits import Limits
from benchmarks.operators import COMPILE_MODES, cudnn, stock_flags
from benchmarks.peers import PEERS
from benchmarks.progress import Reporter
from benchmarks.rows import ERROR, OK, UNAVAILABLE
from benchmarks.runner import Settings
from benchmarks.unfused import UnfusedBlock, compiled_call
from effnet_fast import backends
from effnet_fast.ops.expand_weights import has_layout

#: Name -> label of every rung, from the bottom up; the first three are stock PyTorch's.
RUNGS = {
    "eager": "eager, batch norms",
    "folded": "eager, folded",
    "compiled": "torch.compile",
    "convolutions": "conv + activation",
    "three-triton": "three kernels, Triton",
    "three-native": "three kernels, C++",
    "expansion-fused": "expansion fused",
    "whole": "whole block",
}
STOCK = ("eager", "folded", "compiled")


def costliest_block(model: str) -> str:
    """Name of the MBConv block of `model` whose eager form moves the most bytes, the first of equals.

    Raises: ValueError for a model without such a block.
    """
    cases = [BlockCase(model, layers, 1, 1, "float32") for layers in mbconv_blocks(model)]
    if not cases:
        raise ValueError(
            f"--model: {model} has no MBConv block; see python -m benchmarks ops without --ladder"
        )
    return max(cases, key=lambda case: rung_bytes(case, "folded")).name


def ladder_case(model: str, block: str | None, batch: int, dtype: str) -> BlockCase:
    """The block called `block`, or the costliest one; ValueError with the names for one that is not there."""
    return named_block(model, block or costliest_block(model), batch, dtype)


def absent(rung: str, case: BlockCase, device: str) -> str:
    """Why `rung` does not exist for this block on this device, in a word or two before a colon; else ""."""
    if rung in ("eager", "folded"):
        return ""
    if rung == "compiled":
        reason = PEERS["compiled"].unavailable(device, case.model)
        return f"not here: {reason}" if reason else ""
    if rung == "three-triton" and device == "cpu":
        return "not on cpu: Triton compiles for GPUs alone"
    if rung == "expansion-fused" and len(case.layers) < 3:
        return "no expansion: the block begins with its depthwise convolution"
    backend = backend_of(rung, device)
    reason = backends.supports("mbconv", backend, device_type=device, dtype=DTYPES[case.dtype])
    if reason is not None:
        return f"not here: {reason}"
    # A composition of other operators is no rung of its own: it would be an earlier one under another name.
    fused = "expand_depthwise_pool" if case.depthwise.squeeze else "expand_depthwise"
    operator = {"expansion-fused": fused, "whole": "mbconv"}.get(rung)
    if operator and not _has_kernel(operator, backend):
        return f"not on {device}: the {backend} backend has no kernel for {operator}"
    if rung == "expansion-fused" and backend == "cuda" and not _one_kernel_on_cuda(case):
        return f"not on {device}: its kernel for {operator} takes no {case.dtype} of this shape"
    return ""


def _one_kernel_on_cuda(case: BlockCase) -> bool:
    """Whether the CUDA kernel takes the layer; it runs others as two kernels."""
    return has_layout(DTYPES[case.dtype], case.layers[0].x.shape[0], case.expanded, case.depthwise.kernel)


def _has_kernel(operator: str, backend: str) -> bool:
    chosen = backends.parse_backend(backend)
    return any(backends.has_kernel(f"{operator}_{form}", chosen) for form in ("into", "packed_into"))


def backend_of(rung: str, device: str) -> str:
    """The backend that computes a rung of ours: C++, whose backends are called like their devices, or Triton.

    Convolutions with their activations are Triton's where C++ is missing; other rungs have one backend each.
    """
    if rung == "three-triton":
        return "triton"
    missing = backends.supports("mbconv", device, device_type=device, dtype=torch.float32) is not None
    return "triton" if missing and rung == "convolutions" and device == "cuda" else device


class LadderContest(BlockContest):
    """One block with its rungs made ready, one after the other."""

    stock = STOCK

    def prepare(self, peer: str, row: Row) -> Callable[[], object]:
        """What the rung `peer` runs, called once; `row` gets its verdict, or why there is no such rung."""
        reason = absent(peer, self.case, self.device)
        if reason:
            row.update(status=UNAVAILABLE, reason=reason)
            return lambda: None
        return super().prepare(peer, row)

    def _stock(self, peer: str) -> Callable[[], Tensor]:
        module = UnfusedBlock(self.arguments, batch_norm=peer == "eager").eval()
        x, flags = self.arguments[0], stock_flags("eager-search", self.device)
        run: Callable[[], Tensor] = partial(module, x)
        if peer == "compiled":
            with cudnn(**flags):
                run = compiled_call(module, [x], COMPILE_MODES[self.device])

        def call() -> Tensor:
            # No inference mode: the compiled function was made without it, and would be compiled again.
            with torch.no_grad(), cudnn(**flags):
                return run()

        return call

    def _ours(self, peer: str) -> Callable[[], Tensor]:
        calls = BlockCalls(self.arguments, self.output, backend_of(peer, self.device))
        return {
            "convolutions": calls.convolutions,
            "three-triton": calls.three_kernels,
            "three-native": calls.three_kernels,
            "expansion-fused": calls.expansion_fused,
            "whole": calls.whole,
        }[peer]()


class LadderRunner(ContestRunner):
    """Ladders of blocks, with a floor made of `limits`."""

    def __init__(self, settings: Settings, reporter: Reporter, device: str, limits: Limits) -> None:
        super().__init__(settings, reporter, device)
        self.limits = limits

    def open(self, case: BlockCase) -> LadderContest:
        return LadderContest(case, self.device)

    def new_row(self, case: BlockCase, peer: str) -> Row:
        return new_row(case, peer, self.device)

    def complete(self, contest: LadderContest, row: Row) -> None:
        case = contest.case
        least = floor(case, self.limits)
        row["bytes_per_image"] = rung_bytes(case, str(row["peer"]))
        row.update(least.record())
        if row["status"] == OK:
            for column in ("median", "p20", "p80"):
                row[f"{column}_us"] = round(1e3 * row[f"{column}_ms"] / case.batch, 4)
            row["of_floor"] = round(least.us / row["median_us"], 4)


def new_row(case: BlockCase, peer: str, device: str) -> Row:
    """A row without result."""
    return {
        "case": case.key,
        **case.record(),
        "device": device,
        "peer": peer,
        "label": RUNGS[peer],
        "group": "stock" if peer in STOCK else "ours",
        "backend": "" if peer in STOCK else backend_of(peer, device),
        "status": ERROR,
        "reason": "",
    }


def case_title(case: BlockCase) -> str:
    """One line naming a case."""
    return f"ladder of {case.model} {case.name} ({case.shape}), batch {case.batch}, {case.dtype}"
