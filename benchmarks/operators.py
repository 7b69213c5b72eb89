"""`benchmarks ops`: each layer by itself, checked, then timed against stock PyTorch and a plain copy."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.layers import LayerCase, images_of
from benchmarks.progress import Reporter
from benchmarks.results import Results
from benchmarks.rows import ERROR, FAIL, OK, time_columns
from benchmarks.runner import Settings, run_jobs
from benchmarks.unfused import Unfused
from effnet_fast import backends
from effnet_fast.measure import Candidate, LocalCandidate, alternate
from effnet_fast.measure.device_timing import DeviceTimer
from effnet_fast.ops import handle
from effnet_fast.ops.geometry import allocate
from effnet_fast.ops.schemas import OPERATORS
from effnet_fast.ops.validation import check
from effnet_fast.testing import Expectation, Target

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

#: How torch.compile is asked for its best on each device. CUDA graphs are left out: they take a launch's cost
#: away from any kernel, ours too.
COMPILE_MODES = {"cpu": None, "cuda": "max-autotune-no-cudagraphs"}

#: Of each of the two buffers of a copy: many times what any cache of the device holds.
COPY_BYTES = {"cpu": 512 << 20, "cuda": 2 << 30}


@dataclass(frozen=True)
class Job:
    """One layer and who computes it."""

    case: LayerCase
    peers: tuple[str, ...]


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


def candidate(call: Callable[[], object], device: str) -> Candidate:
    """`call` as `alternate` times it: by the device's own clock where it has one."""
    return LocalCandidate(call) if device == "cpu" else _OnDevice(call)


@functools.cache
def _timer() -> DeviceTimer:
    return DeviceTimer()


class _OnDevice:
    """A candidate that the GPU's events time; how long a sample lasts is theirs to choose."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call

    def sample(self, min_seconds: float) -> list[float]:
        return [_timer()(self._call) / 1e6]


def copy_bandwidth(device: str, *, size: int | None = None) -> float:
    """Bytes a second that a plain copy reads and writes."""
    size = size or COPY_BYTES[device]
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    timed = alternate({"copy": candidate(lambda: target.copy_(source), device)}, rounds=5, min_seconds=0.1)
    return 2 * size / timed["copy"].median


def moved_bytes(arguments: Sequence[Any], outputs: Sequence[torch.Tensor]) -> int:
    """What one call must read and write, each tensor once: inputs, weights and outputs."""
    tensors = [value for value in (*arguments, *outputs) if isinstance(value, torch.Tensor)]
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

    def prepare(self, peer: str, row: dict[str, object]) -> Callable[[], object]:
        """What `peer` runs, called once; `row` gets its verdict."""
        if peer in STOCK:
            row["status"] = OK
            return self._stock(peer)
        call = self._ours(peer)
        self._judge(call, row)
        return call

    def _ours(self, backend: str) -> Callable[[], object]:
        """The engine's call: packed weights, given memory."""
        function = handle(self.operator, "packed_into", backend)
        arguments = Target(backend, packed=True).pack_arguments(self.operator, self.arguments)

        def call() -> None:
            with torch.inference_mode():
                function(*self.outputs, *arguments)

        return call

    def _judge(self, call: Callable[[], object], row: dict[str, object]) -> None:
        """The numerics contract on the first and the last image of the batch that is timed."""
        for output in self.outputs:
            output.fill_(float("nan"))
        call()
        rows = torch.tensor(sorted({0, self.case.batch - 1}))
        expectation = Expectation.of(self.operator, images_of(self.operator, self.arguments, rows))
        found = expectation.compare([output[rows.to(output.device)] for output in self.outputs])
        used = max(comparison.used for comparison in found.values())
        passed = all(comparison.passed for comparison in found.values())
        row["status"] = OK if passed else FAIL
        row["error_usage"] = float(f"{used:.4g}") if used < float("inf") else None
        row["reason"] = "" if passed else f"error is {used:.3g} times what the contract allows"

    def _stock(self, peer: str) -> Callable[[], object]:
        module = Unfused(self.operator, self.arguments).eval()
        function: Callable = module
        if peer == "compiled":
            torch.compiler.reset()
            function = torch.compile(module, fullgraph=True, dynamic=False, mode=COMPILE_MODES[self.device])

        def call() -> object:
            with torch.no_grad(), cudnn(**CUDNN.get(peer, {})):
                return function(*module.inputs)

        import torch._inductor.config as inductor_config

        # Constant weights may be packed for the library that multiplies: up to 1.6 times faster on a CPU.
        with inductor_config.patch(freezing=True):
            call()
        return call


class OperatorRunner:
    """Runs jobs in this process: nothing but the layer itself is timed."""

    def __init__(self, settings: Settings, reporter: Reporter, device: str, copy_bytes_per_second: float):
        self.settings, self.reporter, self.device = settings, reporter, device
        self.copy_bytes_per_second = copy_bytes_per_second

    def run(
        self,
        jobs: Sequence[Job],
        results: Results,
        save: Callable[[], None],
        *,
        deadline_seconds: float | None = None,
    ) -> int:
        """See `benchmarks.runner.run_jobs`."""
        return run_jobs(
            jobs, self._run_job, results, save, self.reporter, deadline_seconds=deadline_seconds
        )  # fmt: skip

    def _run_job(self, job: Job) -> list[dict[str, object]]:
        rows = {peer: new_row(job.case, peer, self.device) for peer in job.peers}
        calls: dict[str, Callable[[], object]] = {}
        try:
            contest = Contest(job.case, self.device)
        except Exception as error:  # memory is the usual reason, and the next case may have enough
            for row in rows.values():
                row.update(status=ERROR, reason=_sentence(error))
            return list(rows.values())
        for peer, row in rows.items():
            self.reporter.step(f"{row['label']}: preparing")
            try:
                calls[peer] = contest.prepare(peer, row)
            except Exception as error:  # whatever it raises is its result for this case
                row.update(status=ERROR, reason=_sentence(error))
        self._time({peer: call for peer, call in calls.items() if rows[peer]["status"] == OK}, rows)
        for row in rows.values():
            row["megabytes"] = round(contest.bytes / 1e6, 4)
            row["copy_gb_per_second"] = round(self.copy_bytes_per_second / 1e9, 2)
            if row["status"] == OK:
                rate = contest.bytes / (row["median_ms"] / 1e3)
                row["gb_per_second"] = round(rate / 1e9, 3)
                row["copy_share"] = round(rate / self.copy_bytes_per_second, 4)
        return list(rows.values())

    def _time(self, calls: Mapping[str, Callable[[], object]], rows: Mapping[str, dict]) -> None:
        summaries = alternate(
            {peer: candidate(call, self.device) for peer, call in calls.items()},
            rounds=self.settings.rounds,
            min_seconds=self.settings.min_seconds,
            budget_seconds=self.settings.budget_seconds,
            on_sample=lambda index, peer: self.reporter.step(
                f"{rows[peer]['label']}: round {index + 1} of {self.settings.rounds}"
            ),
        )
        for peer, summary in summaries.items():
            columns = time_columns(summary, rows[peer]["batch"])
            # A layer of one image takes microseconds.
            columns["median_ms"] = round(summary.median * 1e3, 6)
            rows[peer].update(columns)


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]


def case_title(case: LayerCase) -> str:
    """One line naming a case."""
    return f"{case.model} {case.layer.name}, batch {case.batch}, {case.dtype}"


def rows_text(rows: Sequence[Mapping[str, object]]) -> str:
    """A case's result in a line."""
    parts = [
        f"{row['label']} {row['median_ms']:.4f}" if row["status"] == OK else f"{row['label']} {row['status']}"
        for row in rows
    ]
    return "ms: " + ", ".join(parts)


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
