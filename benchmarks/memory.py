"""`benchmarks memory`: the peak of activation memory, eager PyTorch in channels_last against the engine."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from rich import box
from rich.table import Table
from torch import nn

from benchmarks.cases import Case
from benchmarks.devices import is_out_of_memory
from benchmarks.peers import PEERS
from benchmarks.rows import ERROR, MEMORY, OK
from benchmarks.subject import distinct_images, rows_of_batch, seeded_model
from benchmarks.tables import SHORT_DTYPES, machine_text
from effnet_fast.inference import fold, network_layers, plan_network
from effnet_fast.measure import peak_allocated_bytes


def peer_bytes(name: str, model: nn.Module, case: Case, device: str) -> int:
    """What a peer of the sweep keeps for activations, and the most that a call of it allocates besides."""
    images = distinct_images(case.image_size).to(device)[rows_of_batch(case.batch).to(device)]
    prepared = PEERS[name].prepare(copy.deepcopy(model).to(device), images, case.torch_dtype)
    prepared.call()
    return peak_allocated_bytes(prepared.call, device) + prepared.own_bytes


def three_kernel_bytes(model: nn.Module, case: Case, device: str) -> int:
    """The arena that holds every activation of the three-kernel plan, a whole batch at a time.

    It is planned, not allocated: the same on every device.
    """
    layers = network_layers(fold(model), (case.image_size, case.image_size))
    return plan_network(layers, batch=case.batch, dtype=case.torch_dtype).arena_bytes


#: What is compared: name -> label, and how its bytes are found.
FORMS: dict[str, tuple[str, Callable[[nn.Module, Case, str], int]]] = {
    "eager": ("eager NHWC, measured", partial(peer_bytes, "eager-nhwc")),
    "three-kernel": ("three-kernel plan, planned", three_kernel_bytes),
    "engine": ("effnet_fast with its chosen plan, measured", partial(peer_bytes, "engine")),
}


@dataclass(frozen=True)
class Job:
    """One case; what is compared is the same in all of them."""

    case: Case
    peers: tuple[str, ...] = tuple(FORMS)


class MemoryRunner:
    """Measures cases in this process, one network at a time."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._name = ""
        self._model = nn.Module()

    def __call__(self, job: Job) -> list[dict[str, object]]:
        """A row for each of `FORMS`; `ratio` is its bytes over eager's."""
        case = job.case
        if self._name != case.model:
            # Bytes do not depend on the statistics, so those of small images do.
            self._name, self._model = case.model, seeded_model(case.model, 64)
        rows = []
        for name in job.peers:
            label, measure = FORMS[name]
            row = {
                "case": case.key,
                **case.record(),
                "peer": name,
                "label": label,
                "status": OK,
                "reason": "",
            }
            try:
                row["activation_bytes"] = measure(self._model, case, self.device)
            except Exception as error:  # what does not fit is a result; the next case may
                row["status"] = MEMORY if is_out_of_memory(error) else ERROR
                row["reason"] = f"{type(error).__name__}: {error}".strip().splitlines()[0]
            rows.append(row)
        eager = rows[0].get("activation_bytes")
        for row in rows:
            if eager and "activation_bytes" in row:
                row["ratio"] = round(row["activation_bytes"] / eager, 4)
        return rows


def memory_table(rows: Sequence[dict[str, object]], environment: dict[str, object]) -> Table:
    """A line for each case."""
    table = Table(
        title=f"peak of activation memory, MiB, {machine_text(environment)}",
        caption="share: of eager PyTorch's peak in channels_last; weights are not counted",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("model", no_wrap=True)
    for heading in ("batch", "dtype", "eager NHWC", "three kernels", "share", "engine", "share"):
        table.add_column(heading, justify="right")
    cases: dict[str, dict[str, dict[str, object]]] = {}
    for row in rows:
        cases.setdefault(str(row["case"]), {})[str(row["peer"])] = row
    for forms in cases.values():
        first = next(iter(forms.values()))
        table.add_row(
            f"{first['model']} @{first['image_size']}",
            str(first["batch"]),
            SHORT_DTYPES[first["dtype"]],
            _mebibytes(forms.get("eager")),
            *(
                text
                for name in ("three-kernel", "engine")
                for text in (_mebibytes(forms.get(name)), _share(forms.get(name)))
            ),
        )
    return table


def _mebibytes(row: dict[str, object] | None) -> str:
    if row is None:
        return "-"
    return f"{row['activation_bytes'] / 2**20:.1f}" if "activation_bytes" in row else str(row["status"])


def _share(row: dict[str, object] | None) -> str:
    return f"{row['ratio']:.3f}" if row is not None and "ratio" in row else "-"
