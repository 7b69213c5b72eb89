"""CUDA graphs on a machine without CUDA: PyTorch's graph is replaced by a recording of calls.

What is real here: which images go through which graph, what is captured, and that results are right for every
number of images. What only a GPU shows: that the kernels can be captured.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch

from effnet_fast import InferenceEngine
from effnet_fast.inference import graphs, runner, step_times
from effnet_fast.inference.graphs import CapturedProgram
from effnet_fast.inference.program import Pass, Program
from effnet_fast.inference.schedule import Schedule


class FakeGraph:
    """Captures what `CapturedProgram` calls between enter and exit, and replays it."""

    recording: FakeGraph | None = None

    def __init__(self):
        self.calls = []
        self.replays = 0

    def replay(self):
        self.replays += 1
        for call, arguments in self.calls:
            call(*arguments)


@pytest.fixture
def fake_cuda(monkeypatch):
    @contextmanager
    def capture(graph, stream=None, capture_error_mode=None):
        assert capture_error_mode == "thread_local"
        FakeGraph.recording = graph
        yield
        FakeGraph.recording = None

    fake = SimpleNamespace(
        CUDAGraph=FakeGraph,
        Stream=lambda device: "side",
        stream=lambda stream: nullcontext(),
        graph=capture,
        synchronize=lambda device=None: None,
    )
    monkeypatch.setattr(graphs.torch, "cuda", fake)
    return fake


def recorded(program):
    """`program` whose calls note themselves while a graph is being captured, and do not run then."""

    def wrap(call):
        def run(*arguments):
            if FakeGraph.recording is not None:
                FakeGraph.recording.calls.append((call, arguments))
            else:
                call(*arguments)

        return run

    (only,) = program.passes
    calls = tuple((wrap(call), arguments) for call, arguments in only.calls)
    step = type(only)(only.begin, only.end, (wrap(only.stem[0]), only.stem[1]), calls, only.names)
    return type(program)((step,), program.output)


@pytest.fixture
def engine(tiny):
    return InferenceEngine(tiny, batch_size=6, image_size=32)


def test_a_graph_serves_every_number_of_images_up_to_its_own(engine, fake_cuda):
    images = torch.randn(6, 3, 32, 32)
    expected = engine(images)
    program = engine._runner.program(6)
    with torch.inference_mode():
        captured = CapturedProgram(recorded(program), torch.zeros(6, 3, 32, 32))
        graph = captured._graph
        assert len(graph.calls) == len(engine.plan.layers) - 1, "everything but the stem, once"
        for count in (6, 1, 4, 5):
            program.output.fill_(float("nan"))
            assert torch.equal(captured.run(images[:count]), expected[:count])
        # Any layout, as the stem takes it: nothing is copied into a fixed place.
        assert torch.equal(captured.run(images.contiguous(memory_format=torch.channels_last)), expected)
    assert graph.replays == 5


def test_a_rest_takes_its_bucket_or_goes_kernel_by_kernel(engine, fake_cuda, monkeypatch):
    images = torch.randn(11, 3, 32, 32)
    expected = engine(images)
    used = []

    class Capture(CapturedProgram):
        def __init__(self, program, images):
            self.count = images.shape[0]
            super().__init__(recorded(program), images)

        def run(self, images):
            used.append((images.shape[0], self.count))
            return super().run(images)

    monkeypatch.setattr(runner, "CapturedProgram", Capture)
    engine._runner.graphs = True
    assert torch.equal(engine(images), expected)
    assert used == [(6, 6), (5, 6)]
    engine._runner.schedule = Schedule({1: 1, 2: 2, 4: 4, 6: 6})
    used.clear()
    assert torch.equal(engine(images), expected)
    assert used == [(6, 6)]
    assert torch.equal(engine(images[:3]), expected[:3])
    assert used == [(6, 6)]
    assert torch.equal(engine(images[:1]), expected[:1])
    assert used == [(6, 6), (1, 1)]


def test_warmup_captures_every_bucket_and_calibrates(engine, fake_cuda, monkeypatch):
    captured = []

    class Capture(CapturedProgram):
        def __init__(self, program, images):
            captured.append(images.shape[0])
            super().__init__(recorded(program), images)

    monkeypatch.setattr(runner, "CapturedProgram", Capture)
    # Graphs take 1 ms whatever they run; kernels take 0.3 ms an image: from 4 images on the graph is faster.
    monkeypatch.setattr(
        runner.Runner,
        "_seconds",
        lambda self, run, count: 1e-3 if isinstance(run.__self__, CapturedProgram) else 3e-4 * count,
    )
    engine._runner.graphs = True
    with torch.inference_mode():
        engine._runner.warm_up()
    assert captured == [1, 2, 4, 6]
    assert [engine._runner.schedule.choose(n) for n in range(1, 7)] == [1, 2, None, 4, 6, 6]


def test_a_failed_capture_leaves_the_callers_stream_current(engine, fake_cuda):
    current = ["the caller's"]

    @contextmanager
    def stream(side):
        before, current[0] = current[0], side
        try:
            yield
        finally:
            current[0] = before

    @contextmanager
    def capture(graph, stream=None, capture_error_mode=None):
        # As PyTorch's: the end of a broken capture raises before the stream is put back.
        current[0] = stream
        try:
            yield
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    fake_cuda.stream, fake_cuda.graph = stream, capture
    with torch.inference_mode(), pytest.raises(RuntimeError, match="previous error"):
        CapturedProgram(engine._runner.program(6), torch.zeros(6, 3, 32, 32))
    assert current == ["the caller's"]


class Turns:
    """`runner._Turns` over two tensors, made and used on streams that note what they are told."""

    def __init__(self, monkeypatch):
        self.log: list[tuple[str, ...]] = []
        self.current = "a"
        log = self.log

        class Event:
            def record(self, stream):
                log.append(("record", stream.name))

        class Stream(SimpleNamespace):
            __hash__ = object.__hash__

            def wait_event(self, event):
                log.append(("wait", self.name))

        class Memory(SimpleNamespace):
            def record_stream(self, stream):
                log.append(("keep", self.name, stream.name))

        streams = {name: Stream(name=name) for name in "abc"}
        fake = SimpleNamespace(Event=Event, current_stream=lambda device: streams[self.current])
        monkeypatch.setattr(runner.torch, "cuda", fake)
        self.turns = runner._Turns(torch.device("cuda"), [Memory(name="arena"), Memory(name="weights")])

    def take(self, stream: str) -> list[tuple[str, ...]]:
        """What is told to whom for a turn of `stream`."""
        self.log.clear()
        self.current = stream
        with self.turns:
            self.log.append(("run", stream))
        return list(self.log)


def test_streams_take_turns_at_the_memory(monkeypatch):
    turns = Turns(monkeypatch)
    # What fills the memory is on its way on the stream that it was made on.
    assert turns.log == [("record", "a")]
    assert turns.take("a") == [("run", "a"), ("record", "a")]
    assert turns.take("a") == [("run", "a"), ("record", "a")]
    kept = [("keep", "arena", "b"), ("keep", "weights", "b")]
    assert turns.take("b") == [("wait", "b"), *kept, ("run", "b"), ("record", "b")]
    assert turns.take("a") == [("wait", "a"), ("run", "a"), ("record", "a")]
    assert turns.take("b") == [("wait", "b"), ("run", "b"), ("record", "b")]


def test_the_first_turn_waits_for_the_memory_where_it_is_another_streams(monkeypatch):
    assert Turns(monkeypatch).take("c")[0] == ("wait", "c")


def test_a_turn_that_fails_is_waited_for(monkeypatch):
    turns = Turns(monkeypatch)
    turns.current = "b"
    with pytest.raises(ZeroDivisionError), turns.turns:
        1 / 0  # noqa: B018
    assert turns.log[-1] == ("record", "b")
    assert turns.take("a")[0] == ("wait", "a")


@pytest.mark.parametrize("capturing", [0, 1, None])
def test_a_capture_on_another_device_is_none_of_the_engines(monkeypatch, capturing):
    current = [0]

    @contextmanager
    def device(index):
        before, current[0] = current[0], index
        yield
        current[0] = before

    fake = SimpleNamespace(device=device, is_current_stream_capturing=lambda: current[0] == capturing)
    monkeypatch.setattr(runner.torch, "cuda", fake)
    taken = []

    @contextmanager
    def turns():
        taken.append(current[0])
        yield

    engine = SimpleNamespace(_spec=SimpleNamespace(device=1), _turns=turns())
    with runner.Runner._turn(engine) as captures:
        assert current == [1]
    assert captures == (capturing == 1)
    assert taken == ([] if capturing == 1 else [1])


class Device:
    """A GPU with one queue: work begins when it is queued and all before it has ended. Time is in seconds."""

    def __init__(self):
        self.host = self.free = 0.0

    def launch(self, host: float, seconds: float) -> None:
        """The host takes `host` to queue what takes the device `seconds`."""
        self.host += host
        self.free = max(self.host, self.free) + seconds

    def event(self, enable_timing: bool) -> SimpleNamespace:
        assert enable_timing
        event = SimpleNamespace()

        def record():
            self.launch(2e-6, 0)
            event.at = self.free

        event.record, event.elapsed_time = record, lambda end: 1e3 * (end.at - event.at)
        return event

    def sleep(self, cycles: int) -> None:
        self.launch(4e-6, cycles / 2e9)

    def synchronize(self, device: torch.device) -> None:
        self.host = max(self.host, self.free)


def test_a_steps_time_is_the_devices_and_not_that_of_its_launch(monkeypatch):
    device = Device()
    fake = SimpleNamespace(Event=device.event, _sleep=device.sleep, synchronize=device.synchronize)
    monkeypatch.setattr(step_times.torch, "cuda", fake)
    seconds = {"stem": 3e-6, "small": 1e-6, "large": 8e-6, "last": 2e-6}
    stem, *calls = ((lambda *_, s=s: device.launch(10e-6, s), (None,)) for s in seconds.values())
    program = Program((Pass(0, 1, stem, tuple(calls), tuple(seconds)),), torch.zeros(1, 1))
    measured = step_times._timed_by_events(lambda: device.host)(program, torch.zeros(1, 3, 2, 2))
    assert measured == pytest.approx(seconds)


@pytest.mark.gpu
@pytest.mark.parametrize("cuda_graph", [True, False])
def test_graphs_on_a_gpu(tiny, cuda_graph):
    engine = InferenceEngine(tiny, batch_size=6, image_size=32, device="cuda", cuda_graph=cuda_graph)
    images = torch.randn(15, 3, 32, 32)
    kernel_by_kernel = InferenceEngine(tiny, batch_size=6, image_size=32, device="cuda", cuda_graph=False)
    expected = kernel_by_kernel(images)
    assert torch.equal(engine(images), expected)
    engine.warmup()
    for count in (15, 6, 5, 3, 1, 0):
        assert torch.equal(engine(images[:count]), expected[:count])
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        on_side = engine(images)
    again = engine(images)
    side.synchronize()
    assert torch.equal(on_side, again)


@pytest.mark.gpu
def test_a_callers_own_graph_contains_the_kernels(tiny):
    engine = InferenceEngine(tiny, batch_size=2, image_size=32, device="cuda")
    images = torch.randn(2, 3, 32, 32, device="cuda")
    expected = engine(images)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = engine(images)
    logits.zero_()
    graph.replay()
    assert torch.equal(logits, expected)


@pytest.mark.gpu
def test_an_engine_dropped_at_work_on_another_stream(tiny):
    images = torch.randn(6, 3, 32, 32, device="cuda")
    expected = InferenceEngine(tiny, batch_size=6, image_size=32, device="cuda")(images)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    for _ in range(20):
        engine = InferenceEngine(tiny, batch_size=6, image_size=32, device="cuda", cuda_graph=False)
        bytes_held = engine.memory.arena_bytes
        with torch.cuda.stream(side):
            torch.cuda._sleep(2_000_000)
            logits = engine(images)
        del engine
        # Would lie in the arena, were it free already.
        torch.full((bytes_held,), 255, dtype=torch.uint8, device="cuda")
        side.synchronize()
        assert torch.equal(logits, expected)
