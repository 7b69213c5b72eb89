"""Peers that need no network: what the runner, the gate and the files do is the same for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import allocator
from benchmarks import runner as runner_module
from benchmarks.cases import Case
from benchmarks.process import PeerError
from benchmarks.subject import seeded_model as real_seeded_model

SECONDS = {
    "eager-nchw": 0.4,
    "eager-nhwc": 0.2,
    "eager-tuned": 0.16,
    "graph-nhwc": 0.08,
    "compiled-plain": 0.3,
    "compiled": 0.1,
    "onnxruntime": 0.125,
    "openvino-latency": 0.08,
    "engine-uint8": 0.04,
    "engine": 0.05,
}


class FakePeer:
    """Answers with the logits and times it is told to; records what it was asked.

    `error` is raised at sample number `dies_at`. `room` says whether the memory that it needs is free: asked
    with the number of fakes that are prepared.
    """

    ready = 0

    def __init__(
        self,
        name: str,
        logits: Callable[[torch.Tensor], torch.Tensor],
        *,
        dies_at: int | None = None,
        error: PeerError | None = None,
        room: Callable[[int], bool] = lambda others: True,
    ):
        self.name = name
        self.logits = logits
        self.dies_at = dies_at
        self.error = error or PeerError("its process ended (SIGSEGV)")
        self.room = room
        self.prepared: list[str] = []
        self.images: list[Path] = []
        self.samples = 0
        self.closed = False
        self.holds = False

    def prepare(
        self, case: Case, weights: Path, images: Path, *, memory: bool, each_call: bool = False
    ) -> tuple[torch.Tensor, dict]:
        self.prepared.append(case.key)
        self.images.append(images)
        if not self.room(FakePeer.ready):
            raise PeerError("OutOfMemoryError: 1 GiB", out_of_memory=True)
        self.holds = True
        FakePeer.ready += 1
        return self.logits(FakePeer.exact_logits(case)), {"prepare_seconds": 0.1, "activation_bytes": 1 << 20}

    @staticmethod
    def exact_logits(case: Case) -> torch.Tensor:
        generator = torch.Generator().manual_seed(case.batch)
        return torch.randn(case.batch, 1000, generator=generator, dtype=torch.float64)

    def sample(self, min_seconds: float) -> list[float]:
        self.samples += 1
        if self.dies_at is not None and self.samples >= self.dies_at:
            raise self.error
        return [SECONDS[self.name]]

    def release(self) -> None:
        FakePeer.ready -= self.holds
        self.holds = False

    def close(self) -> None:
        self.release()
        self.closed = True


class FakeOracle:
    """float64 logits of the fakes; stock is wrong by one part in 10^6 in float32 and 10^2 in bfloat16."""

    terms = 1

    def rows(self, case: Case) -> tuple[torch.Tensor, torch.Tensor]:
        exact = FakePeer.exact_logits(case)
        return exact, exact * (1 + (1e-6 if case.dtype == "float32" else 1e-2))


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for each other make these tests slow on a busy machine; none of them needs two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def allocator_as_it_is(monkeypatch: pytest.MonkeyPatch):
    """What glibc is told holds for the rest of a process, and other tests measure memory in this one."""
    monkeypatch.setattr(allocator, "keep_freed_memory", lambda: True)


@pytest.fixture
def fake_peers(monkeypatch: pytest.MonkeyPatch):
    """start_peer for a `Runner`; `fake_peers.logits[name]` changes what a peer answers, `.started` lists the
    peers.
    """
    monkeypatch.setattr(runner_module.Subject, "load", lambda self, case, dtypes, kinds: None)
    monkeypatch.setattr(FakePeer, "ready", 0)
    original = runner_module.Subject.__init__

    def without_oracle(self, folder: Path, seed: int) -> None:
        original(self, folder, seed)
        self.oracles = {"float": FakeOracle(), "uint8": FakeOracle()}

    monkeypatch.setattr(runner_module.Subject, "__init__", without_oracle)

    def start(name: str) -> FakePeer:
        peer = FakePeer(
            name,
            start.logits.get(name, lambda exact: exact),
            dies_at=start.dies_at.get(name),
            error=start.error,
            **({"room": start.room[name]} if name in start.room else {}),
        )
        start.started.append(peer)
        return peer

    start.logits = {}
    start.dies_at = {}
    start.room = {}
    start.error = None
    start.started = []
    return start


@pytest.fixture(scope="session")
def b0() -> torch.nn.Module:
    """Seeded B0 for images of 64 pixels; tests must not change it."""
    return real_seeded_model("efficientnet_b0", 64)
