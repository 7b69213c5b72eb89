"""CUDA graphs with branches on a machine without CUDA: what PyTorch's capture makes of streams that wait.

A captured call becomes a node behind the last nodes of its stream; `wait_stream` adds those of another, and
takes a stream into the capture: what is launched on one outside of it is in no graph. A replay runs the nodes
in a random order that these edges allow, as a GPU may, and `assert_no_race` looks at the edges themselves:
two nodes without a path between them must not touch the same memory if one writes it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch

from effnet_fast import ops
from effnet_fast.inference import CpuLimits, engine, graphs, program


@dataclass(eq=False, repr=False)  # a chain of nodes is far too long to print
class Node:
    call: Callable
    arguments: tuple
    stream: FakeStream
    before: frozenset[Node]  # all that must have ended

    def spans(self, *, written: bool) -> Iterator[tuple[int, int]]:
        """[begin, end) of the addresses that the call writes, or reads."""
        for argument, declared in zip(self.arguments, self.call._schema.arguments, strict=True):
            writes = declared.alias_info is not None and declared.alias_info.is_write
            if isinstance(argument, torch.Tensor) and argument.numel() and writes == written:
                last = sum((n - 1) * s for n, s in zip(argument.shape, argument.stride(), strict=True))
                yield argument.data_ptr(), argument.data_ptr() + (last + 1) * argument.itemsize


@dataclass(eq=False, repr=False)  # a chain of nodes is far too long to print
class FakeStream:
    cuda: FakeCuda
    tail: frozenset[Node] = frozenset()
    captured: bool = False

    def wait_stream(self, other: FakeStream) -> None:
        if not self.cuda.ignores(self):
            self.tail |= other.tail
            self.captured |= other.captured


class FakeGraph:
    """`replay` runs the nodes in an order that `seeds` chooses anew each time."""

    seeds = random.Random(0)

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        left, done = list(self.nodes), set()
        while left:
            node = self.seeds.choice([node for node in left if node.before <= done])
            node.call(*node.arguments)
            left.remove(node)
            done.add(node)

    @property
    def streams(self) -> list[FakeStream]:
        return list(dict.fromkeys(node.stream for node in self.nodes))

    def assert_no_race(self) -> None:
        for i, a in enumerate(self.nodes):
            for b in self.nodes[:i]:
                if b in a.before or a in b.before:
                    continue
                for one, other in ((a, b), (b, a)):
                    touched = [*other.spans(written=True), *other.spans(written=False)]
                    for begin, end in one.spans(written=True):
                        assert not any(begin < last and first < end for first, last in touched), "race"


@dataclass(repr=False)
class FakeCuda:
    """`torch.cuda` for `graphs.py`. `deaf`: the capture's "fork" or "join" is left out, as a fault."""

    deaf: str | None = None
    graph: FakeGraph | None = None
    origin: FakeStream | None = None
    current: list[FakeStream] = field(default_factory=list)

    def ignores(self, stream: FakeStream) -> bool:
        return self.deaf == ("join" if stream is self.origin else "fork")

    @contextmanager
    def stream(self, stream: FakeStream):
        self.current.append(stream)
        yield
        self.current.pop()

    @contextmanager
    def capture(self, graph: FakeGraph, stream: FakeStream, capture_error_mode: str):
        assert capture_error_mode == "thread_local"
        self.graph, self.origin, stream.captured = graph, stream, True
        yield
        joined = set(stream.tail).union(*(node.before for node in stream.tail))
        self.graph = self.origin = None
        if joined != set(graph.nodes):
            raise RuntimeError("capturing stream has unjoined work")

    def handle(self, *of) -> Callable:
        """`ops.handle`, whose calls become nodes while a graph is being captured."""
        call = ops.handle(*of)

        def run(*arguments):
            if self.graph is None:
                return call(*arguments)
            stream = self.current[-1]
            assert stream.captured, "a kernel that no replay will run"
            before = frozenset(stream.tail).union(*(node.before for node in stream.tail))
            node = Node(call, arguments, stream, before)
            self.graph.nodes.append(node)
            stream.tail = frozenset({node})

        return run


def install(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """Engines made on the CPU from now on capture graphs, on this model."""
    fake = FakeCuda()
    names = SimpleNamespace(
        CUDAGraph=FakeGraph,
        Stream=lambda device: FakeStream(fake),
        stream=fake.stream,
        graph=fake.capture,
    )
    # The modules' own names: `torch.cuda` itself stays what it is.
    monkeypatch.setattr(graphs, "torch", SimpleNamespace(cuda=names))
    monkeypatch.setattr(program, "ops", SimpleNamespace(handle=fake.handle))
    monkeypatch.setattr(engine, "resolve_graphs", lambda asked, device, backends: asked is not False)
    # As on a GPU: a batch is not divided for the sake of caches.
    monkeypatch.setattr(CpuLimits, "detect", classmethod(lambda cls: cls(1 << 40, 1 << 40, threads=1)))
    return fake
