"""`benchmarks fuse`: models of other libraries as people have them, against what `effnet_fast.fuse` returns.

Eager PyTorch twice: as the model comes, and in channels_last memory, which is its fastest form that asks for
one line. Both keep their batch norms, as `fuse` gets them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import effnet_fast
from benchmarks.cases import DTYPES
from benchmarks.contest import ContestRunner
from benchmarks.fuse_models import BY_NAME, FuseModel, prepared
from benchmarks.rows import ERROR, FAIL, OK, verdict_columns
from benchmarks.subject import distinct_images, rows_of_batch
from effnet_fast.measure import judge_logits

#: Name -> label of everybody who computes a case.
EAGER, EAGER_NHWC, FUSED = "eager", "eager-nhwc", "fused"
PEERS = {EAGER: "eager", EAGER_NHWC: "eager NHWC", FUSED: "fused"}


@dataclass(frozen=True)
class FuseCase:
    """A model of the list at a batch and a dtype; `name` is that of `fuse_models`."""

    name: str
    batch: int
    dtype: str

    @property
    def model(self) -> FuseModel:
        return BY_NAME[self.name]

    @property
    def key(self) -> str:
        return f"{self.name}/{self.model.image_size}/{self.batch}/{self.dtype}"

    def record(self) -> dict[str, object]:
        """Columns of the result file."""
        model = self.model
        return {
            "library": model.library,
            "model": model.model,
            "family": model.family,
            "image_size": model.image_size,
            "batch": self.batch,
            "dtype": self.dtype,
        }


def case_title(case: FuseCase) -> str:
    return f"{case.name} {case.model.image_size} px, batch {case.batch}, {case.dtype}"


class FuseContest:
    """One model with everybody who computes it made ready, on the same images."""

    def __init__(self, case: FuseCase, seed: int) -> None:
        dtype = DTYPES[case.dtype]
        self.case = case
        self.network = copy.deepcopy(prepared(case.model, seed)).to(dtype)
        images = distinct_images(case.model.image_size).to(dtype)
        self._terms = [m for m in self.network.modules() if isinstance(m, nn.Linear)][-1].in_features
        # The truth is of the weights that all of them have: those that are rounded to the dtype.
        exact = copy.deepcopy(self.network).double()
        with torch.inference_mode():
            self._oracle = torch.cat([exact(image[None].double()) for image in images]).clone()
            self._stock = torch.cat([self.network(image[None]) for image in images]).clone()
        self._rows = rows_of_batch(case.batch)
        self._x = images[self._rows].contiguous()

    def prepare(self, peer: str, row: dict[str, object]) -> Callable[[], Tensor]:
        """What `peer` runs, called once; `row` gets its verdict."""
        network, x = self.network, self._x
        if peer == EAGER_NHWC:
            network = copy.deepcopy(network).to(memory_format=torch.channels_last)
            x = x.to(memory_format=torch.channels_last)
        elif peer == FUSED:
            network = effnet_fast.fuse(network)
            row.update(_report_columns(network, self.case.model.image_size))

        def call() -> Tensor:
            with torch.inference_mode():
                return network(x)

        verdict = judge_logits(
            call(),
            oracle=self._oracle[self._rows],
            stock=self._stock[self._rows],
            dtype=DTYPES[self.case.dtype],
            terms=self._terms,
        )
        row.update(verdict_columns(verdict))
        row.update(status=OK if verdict.passed else FAIL, reason=verdict.reason)
        return call


def _report_columns(network: nn.Module, image_size: int) -> dict[str, object]:
    report = effnet_fast.fusion_report(network, image_size=image_size)
    return {
        "modules_fused": len(report.fused),
        "modules_left_alone": len(report.left_alone),
        "eager_bytes_per_image": report.bytes_before,
        "fused_bytes_per_image": report.bytes_after,
    }


class FuseRunner(ContestRunner):
    """Contests of whole models, in this process."""

    def open(self, case: FuseCase) -> FuseContest:
        self.reporter.step("weights and float64 logits")
        return FuseContest(case, self.settings.seed)

    def new_row(self, case: FuseCase, peer: str) -> dict[str, object]:
        return {
            "case": case.key,
            **case.record(),
            "peer": peer,
            "label": PEERS[peer],
            "group": "ours" if peer == FUSED else "eager",
            "status": ERROR,
            "reason": "",
        }

    def complete(self, contest: FuseContest, row: dict[str, object]) -> None:
        """Everything is in the row already."""
