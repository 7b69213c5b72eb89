"""The parent's end of a peer's process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import torch

from benchmarks.cases import Case
from benchmarks.peers import PEERS

#: Folder that holds the package `benchmarks`; the worker is started in it.
ROOT = Path(__file__).resolve().parent.parent

#: Characters of a worker's error output that an error message quotes.
ERROR_TAIL = 400


class PeerError(RuntimeError):
    """A peer could not be prepared or timed; the message is one line. `out_of_memory` tells whether with more
    memory it could, `unavailable` whether it said itself that it cannot run the case.
    """

    def __init__(self, message: str, *, out_of_memory: bool = False, unavailable: bool = False):
        super().__init__(message)
        self.out_of_memory = out_of_memory
        self.unavailable = unavailable


class RunningPeer(Protocol):
    """What the runner needs of a peer: a process (`PeerProcess`), or a fake in a test."""

    def prepare(
        self, case: Case, weights: Path, images: Path, *, memory: bool, each_call: bool = False
    ) -> tuple[torch.Tensor, dict]:
        """Make ready for `case`; `images` holds the distinct images. `each_call`: samples are latencies (see
        `benchmarks.devices.candidate`). Returns the batch's logits and {"prepare_seconds",
        "activation_bytes", ...}.
        """
        ...

    def sample(self, min_seconds: float) -> list[float]: ...

    def release(self) -> None: ...

    def close(self) -> None: ...


class PeerProcess:
    """A worker process, kept for the whole run; idle (blocked on its input) whenever another one works.

    It lives in a process group of its own, so that Ctrl-C reaches the parent alone, which then ends the
    workers in order.
    """

    def __init__(self, peer: str, *, threads: int, folder: Path, device: str = "cpu"):
        self.peer = peer
        self._logits = folder / f"logits-{peer}.pt"
        self._errors = folder / f"errors-{peer}.txt"
        counts = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        environment = {**os.environ, **counts, **PEERS[peer].environment}
        environment.pop("TRITON_INTERPRET", None)  # nobody's speed
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.worker", peer, str(threads), device],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )

    def _ask(self, **request: object) -> dict:
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except (BrokenPipeError, OSError):
            line = ""
        if not line:
            raise PeerError(self._death())
        reply = json.loads(line)
        if not reply.pop("ok"):
            why = {name: reply.get(name, False) for name in ("out_of_memory", "unavailable")}
            raise PeerError(reply["error"], **why)
        return reply

    def _death(self) -> str:
        code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"status {code}"
        tail = " ".join(self._errors.read_text(errors="replace")[-ERROR_TAIL:].split())
        return f"its process ended ({how}): {tail}" if tail else f"its process ended ({how})"

    def prepare(
        self, case: Case, weights: Path, images: Path, *, memory: bool, each_call: bool = False
    ) -> tuple[torch.Tensor, dict]:
        reply = self._ask(
            do="prepare",
            model=case.model,
            batch=case.batch,
            dtype=case.dtype,
            weights=str(weights),
            images=str(images),
            logits=str(self._logits),
            memory=memory,
            each_call=each_call,
        )
        return torch.load(self._logits, weights_only=True), reply

    def sample(self, min_seconds: float) -> list[float]:
        return self._ask(do="sample", min_seconds=min_seconds)["seconds"]

    def release(self) -> None:
        self._ask(do="release")

    def close(self) -> None:
        """End the process and what it started (compilers), at once if it is in the middle of something."""
        self._process.stdin.close()
        try:
            self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process.stdout.close()
