"""The CUDA side of streams, on a model of CUDA: work on streams is ordered by events alone.

The model remembers which work is known to be finished where (on each stream, on the host). Work that reads
what is not known to be written there, and memory given back while a stream may use it, are errors.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from types import SimpleNamespace

import pytest
import torch

from effnet_fast.inference import transfers
from effnet_fast.inference.stream import Stream

CUDA = torch.device("cuda", 0)


class Model:
    """Fakes of `torch.cuda.Stream`, `.Event`, `.stream`, `.current_stream`, and of tensors."""

    def __init__(self) -> None:
        self.host: set[int] = set()
        self.tensors: list[FakeTensor] = []
        self.work = itertools.count()
        self.waits = 0
        self._current = threading.local()
        self.default = FakeStream(self)

    def current_stream(self, device=None) -> FakeStream:
        return getattr(self._current, "stream", self.default)

    @contextlib.contextmanager
    def stream(self, stream: FakeStream):
        before = self.current_stream()
        self._current.stream = stream
        yield
        self._current.stream = before

    def event(self, blocking: bool = False) -> FakeEvent:
        return FakeEvent(self, blocking)


class FakeEvent:
    def __init__(self, model: Model, blocking: bool = False) -> None:
        self.model, self.blocking, self.known = model, blocking, None

    def synchronize(self) -> None:
        assert self.blocking
        self.model.waits += 1
        self.model.host |= self.known


class FakeStream:
    def __init__(self, model: Model) -> None:
        self.model = model
        self.known: set[int] = set()

    def wait_event(self, event: FakeEvent) -> None:
        assert event.known is not None, "a stream waits for an event that was not recorded"
        self.known |= event.known

    def record_event(self, event: FakeEvent | None = None) -> FakeEvent:
        event = event or FakeEvent(self.model)
        event.known = set(self.known)
        return event


class FakeTensor:
    """Numbers on a device. `written`: the work that writes them; `streams`: all that use them."""

    def __init__(self, model: Model, value, device, *, pinned: bool = False, written: int | None = None):
        self.model, self.value, self.device, self._pinned, self._written = (
            model,
            value,
            device,
            pinned,
            written,
        )
        self._home = model.current_stream()
        self._used, self._recorded = set(), set()
        model.tensors.append(self)

    def is_pinned(self) -> bool:
        return self._pinned

    def record_stream(self, stream: FakeStream) -> None:
        assert self.device.type == "cuda"
        self._recorded.add(stream)

    def read(self, where: FakeStream | None) -> object:
        """The numbers, for work on a stream, or for the host (None)."""
        known = self.model.host if where is None else where.known | self.model.host
        assert self._written is None or self._written in known, f"{self.value} is read before it is there"
        if where is not None:
            self._used.add(where)
        return self.value

    def computed(self, value, device, *, pinned: bool = False) -> FakeTensor:
        """The result of work on the current stream that reads this tensor."""
        stream = self.model.current_stream()
        self.read(stream)
        work = next(self.model.work)
        stream.known.add(work)
        result = FakeTensor(self.model, value, device, pinned=pinned, written=work)
        result._used.add(stream)
        return result

    def to(self, device, non_blocking: bool) -> FakeTensor:
        device = torch.device(device)
        assert non_blocking
        assert self._pinned or self.device.type == "cuda", "pageable memory is copied synchronously"
        return self.computed(self.value, device, pinned=device.type == "cpu")

    def clone(self) -> object:
        return self.read(None)

    def assert_streams_recorded(self) -> None:
        if self.device.type == "cuda":
            missing = self._used - self._recorded - {self._home}
            assert not missing, f"{self.value} may be overwritten while another stream uses it"


class FakeEngine:
    """Logits = images + 1, on the stream that is current; refuses None and fails on 13."""

    device = CUDA

    def check(self, images) -> None:
        if images is None:
            raise TypeError("images must be a torch.Tensor, got NoneType")

    def __call__(self, images: FakeTensor) -> FakeTensor:
        if images.value == 13:
            raise RuntimeError("the engine failed")
        return images.computed(images.value + 1, CUDA)


@pytest.fixture
def model(monkeypatch) -> Model:
    model = Model()

    def pinned_copy(images: FakeTensor) -> FakeTensor:
        return FakeTensor(model, images.read(None), images.device, pinned=True)

    cuda = SimpleNamespace(
        Stream=lambda device: FakeStream(model),
        Event=model.event,
        stream=model.stream,
        current_stream=model.current_stream,
    )
    # The module's own name `torch`: another thread of this process may use the real one.
    monkeypatch.setattr(transfers, "torch", SimpleNamespace(cuda=cuda, device=torch.device))
    monkeypatch.setattr(transfers, "pinned_copy", pinned_copy)
    return model


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("source", ["pageable", "pinned", "device"])
def test_copies_and_kernels_wait_for_each_other(model, source, depth):
    host = torch.device("cpu")

    def images():
        for i in range(20):
            if source == "device":  # computed in the reader's thread, on its current stream
                yield FakeTensor(model, i, host, pinned=True).computed(i, CUDA)
            else:
                yield FakeTensor(model, i, host, pinned=source == "pinned")

    stream = Stream(FakeEngine(), images(), depth=depth, on_error="skip")
    assert list(stream) == [i + 1 for i in range(20) if i != 13]
    assert (stream.received, stream.failed) == (20, 1)
    assert model.waits == 19
    for tensor in model.tensors:
        tensor.assert_streams_recorded()


def test_what_the_engine_refuses_is_not_copied(model):
    stream = Stream(FakeEngine(), [None])
    with pytest.raises(TypeError, match="got NoneType"):
        next(stream)
    assert not model.tensors


def test_the_three_kinds_of_work_have_a_stream_each(model):
    stages = transfers.transfers_of(FakeEngine())
    images = FakeTensor(model, 1, torch.device("cpu"))
    uploaded = stages.upload(images)
    computed = stages.compute(uploaded)
    assert stages.fetch(computed) == 2
    homes = [uploaded.tensor._home, computed.tensor._home]
    logits = next(tensor for tensor in model.tensors if tensor.value == 2 and tensor.device == CUDA)
    assert len({model.default, logits._home, *homes}) == 4


@pytest.mark.parametrize(
    "images",
    [
        torch.arange(24.0).reshape(2, 3, 2, 2),
        torch.arange(24.0).reshape(2, 3, 2, 2).to(memory_format=torch.channels_last),
        torch.arange(24).to(torch.uint8).reshape(2, 2, 2, 3),
        torch.arange(48.0).reshape(2, 3, 2, 4)[..., ::2],
        torch.arange(12.0).reshape(1, 3, 2, 2).expand(4, -1, -1, -1),
        torch.arange(24.0).reshape(2, 3, 2, 2).requires_grad_(),
        torch.empty(0, 3, 2, 2),
    ],
    ids=["NCHW", "channels_last", "uint8", "slice", "expanded", "grad", "empty"],
)
def test_the_pinned_copy_is_the_same_images(images, monkeypatch):
    real, asked = torch.empty_like, []

    def empty_like(like, *, pin_memory):  # pinning itself needs a GPU's driver
        asked.append(pin_memory)
        return real(like)

    monkeypatch.setattr(torch, "empty_like", empty_like)
    copy = transfers.pinned_copy(images)
    assert asked == [True]
    assert torch.equal(copy, images)
    assert copy.dtype == images.dtype
    assert not copy.requires_grad
    if images.is_contiguous(memory_format=torch.channels_last):
        assert copy.stride() == images.stride()
