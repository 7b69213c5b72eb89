"""`benchmarks ops`: each layer by itself, checked, then timed against stock PyTorch and a plain copy.

Everybody is checked against float64 on the first and the last image of the batch that is timed: this
project's kernels by the numerics contract, stock PyTorch's forms by the same, but for outputs that they store
in 16 bits and the contract has in float32 (`benchmarks.contest.in_storage`).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import DTYPES
from benchmarks.contest import ContestRunner, in_storage, judge
from benchmarks.layers import LayerCase, images_of
from benchmarks.limits import Limits, arithmetic_seconds, peak_gmacs
from benchmarks.progress import Reporter
from benchmarks.rows import ERROR, OK
from benchmarks.runner import Settings
from benchmarks.unfused import Unfused, compiled_call
from effnet_fast import backends
from effnet_fast.inference.cost import work
from effnet_fast.ops import handle
from effnet_fast.ops.geometry import allocate
from effnet_fast.ops.schemas import OPERATORS
from effnet_fast.ops.validation import check
from effnet_fast.testing import Expectation, Target

#: What a call returns: the outputs of the operator.
Outputs = Tensor | Sequence[Tensor]

#: Of this project on each device. Triton's interpreter is not one: its speed says nothing.
BACKENDS = {"cpu": ("cpu",), "cuda": ("cuda", "triton")}
STOCK = {
    "eager": "eager NHWC",
    "eager-search": "eager, cuDNN searches",
    "eager-native": "eager, cuDNN off",
    "compiled": "torch.compile",
}

#: What these forms change of torch.backends.cudnn, whose first choice is not always its best. PyTorch has a
#: depthwise kernel of its own beside cuDNN's; for other convolutions turning cuDNN off makes them slower.
CUDNN = {"eager-search": {"benchmark": True}, "eager-native": {"enabled": False}}


def stock_flags(peer: str, device: str) -> dict[str, bool]:
    """What `peer` runs under, of torch.backends.cudnn; nothing on a CPU.

    float32 is never TF32, whose error is 1000 times what the check allows.
    """
    return {"allow_tf32": False, **CUDNN.get(peer, {})} if device == "cuda" else {}


#: How torch.compile is asked for its best on each device. CUDA graphs are left out: they take a launch's cost
#: away from any kernel, ours too.
COMPILE_MODES = {"cpu": None, "cuda": "max-autotune-no-cudagraphs"}


def available_backends(device: str) -> list[str]:
    """This project's backends that serve `device` on this machine."""
    return [
        name
        for name in BACKENDS[device]
        if backends.supports("mbconv", name, device_type=device, dtype=torch.float32) is None
    ]


def parse_backends(text: str, device: str) -> list[str]:
    """ "triton,cuda" -> names; ValueError for one that is not known or cannot serve here, with the reason."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in BACKENDS[device]:
            raise ValueError(
                f"--backend: {name!r} is not for {device}; allowed: {', '.join(BACKENDS[device])}"
            )
        reason = backends.supports("mbconv", name, device_type=device, dtype=torch.float32)
        if reason is not None:
            raise ValueError(f"--backend: {name} cannot serve: {reason}")
    if not names:
        raise ValueError(f"--backend: {text!r} is empty; allowed: {', '.join(BACKENDS[device])}")
    return list(dict.fromkeys(names))


def stock_peers(operator: str, device: str, *, compiled: bool) -> tuple[str, ...]:
    """The stock forms that `operator` is compared with on `device`."""
    peers = ["eager"]
    if device == "cuda":
        peers.append("eager-search")
        if operator.startswith("depthwise_conv"):
            peers.append("eager-native")
    return (*peers, *(["compiled"] if compiled else []))


@contextlib.contextmanager
def cudnn(**changes: bool) -> Iterator[None]:
    """torch.backends.cudnn with some flags changed; torch.backends.cudnn.flags would reset the others."""
    flags = torch.backends.cudnn
    before = {name: getattr(flags, name) for name in changes}
    for name, value in changes.items():
        setattr(flags, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(flags, name, value)


def moved_bytes(arguments: Sequence[Any], outputs: Sequence[Tensor]) -> int:
    """What one call must read and write, each tensor once: inputs, weights and outputs."""
    tensors = [value for value in (*arguments, *outputs) if isinstance(value, Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class Contest:
    """One layer on one device, with everybody who computes it made ready."""

    def __init__(self, case: LayerCase, device: str) -> None:
        self.case, self.device = case, device
        self.operator = case.layer.operator
        self.arguments = case.arguments(device)
        row = OPERATORS[self.operator]
        self.outputs = allocate(row, *check(row, "", self.arguments))
        self.bytes = moved_bytes(self.arguments, self.outputs)
        self._rows = torch.tensor(sorted({0, case.batch - 1}))
        self._expectation = Expectation.of(
            self.operator, images_of(self.operator, self.arguments, self._rows)
        )

    def prepare(self, peer: str, row: dict[str, object]) -> Callable[[], object]:
        """What `peer` runs, called once; `row` gets its verdict."""
        stock = peer in STOCK
        call = self._stock(peer) if stock else self._ours(peer)
        self._judge(call, in_storage(self._expectation) if stock else self._expectation, row)
        return call

    def _ours(self, backend: str) -> Callable[[], Outputs]:
        """The engine's call: packed weights, given memory."""
        function = handle(self.operator, "packed_into", backend)
        arguments = Target(backend, packed=True).pack_arguments(self.operator, self.arguments)

        def call() -> Outputs:
            with torch.inference_mode():
                function(*self.outputs, *arguments)
            return self.outputs

        return call

    def _judge(self, call: Callable[[], Outputs], expectation: Expectation, row: dict[str, object]) -> None:
        """Hold the first and the last image of the batch that is timed to `expectation`."""
        for output in self.outputs:
            output.fill_(float("nan"))
        found = call()
        outputs = [found] if isinstance(found, Tensor) else found
        judge(expectation.compare([output[self._rows.to(output.device)] for output in outputs]), row)

    def _stock(self, peer: str) -> Callable[[], Outputs]:
        module, flags = Unfused(self.operator, self.arguments).eval(), stock_flags(peer, self.device)
        run: Callable[[], Outputs] = functools.partial(module, *module.inputs)
        if peer == "compiled":
            with cudnn(**flags):
                run = compiled_call(module, module.inputs, COMPILE_MODES[self.device])
            if not flags:
                return run  # what is below would add a context to the time of a layer that may take 10 us

        def call() -> Outputs:
            with torch.no_grad(), cudnn(**flags):
                return run()

        return call


class OperatorRunner(ContestRunner):
    """Contests of single layers; `limits` are the rates that theirs are compared with, by dtype."""

    def __init__(
        self, settings: Settings, reporter: Reporter, device: str, limits: Mapping[str, Limits]
    ) -> None:
        super().__init__(settings, reporter, device)
        self.limits = limits

    def open(self, case: LayerCase) -> Contest:
        return Contest(case, self.device)

    def new_row(self, case: LayerCase, peer: str) -> dict[str, object]:
        return new_row(case, peer, self.device)

    def complete(self, contest: Contest, row: dict[str, object]) -> None:
        case, limits = contest.case, self.limits[contest.case.dtype]
        copy, rates = limits.copy_bytes_per_second, limits.arithmetic
        memory = contest.bytes / copy
        arithmetic = arithmetic_seconds([case.layer], case.batch, case.dtype, rates)
        storage = DTYPES[case.dtype]
        row["gmacs"] = round(work(case.layer, case.batch, storage, storage).macs / 1e9, 6)
        row["megabytes"] = round(contest.bytes / 1e6, 4)
        row["copy_gb_per_second"] = round(copy / 1e9, 2)
        row.update(peak_gmacs(case.layer, case.dtype, rates))
        if arithmetic is not None:
            row["bound"] = "memory" if memory >= arithmetic else "arithmetic"
        if row["status"] == OK:
            seconds = row["median_ms"] / 1e3
            rate = contest.bytes / seconds
            row["gb_per_second"] = round(rate / 1e9, 3)
            row["copy_share"] = round(rate / copy, 4)
            row["gmacs_per_second"] = round(row["gmacs"] / seconds, 3)
            if arithmetic is not None:
                row["of_roof"] = round(max(memory, arithmetic) / seconds, 4)


def case_title(case: LayerCase) -> str:
    """One line naming a case."""
    return f"{case.model} {case.layer.name}, batch {case.batch}, {case.dtype}"


def new_row(case: LayerCase, peer: str, device: str) -> dict[str, object]:
    """A row without result."""
    return {
        "case": case.key,
        **case.record(),
        "device": device,
        "peer": peer,
        "label": STOCK.get(peer, f"effnet_fast {peer}"),
        "group": "stock" if peer in STOCK else "ours",
        "status": ERROR,
        "reason": "",
    }
