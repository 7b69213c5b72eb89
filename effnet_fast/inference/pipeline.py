"""The threads of a stream: one reads batches ahead, one computes; bounded, and stopped from anywhere."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from effnet_fast.inference.transfers import transfers_of

if TYPE_CHECKING:
    from effnet_fast.inference.engine import InferenceEngine

__all__ = ["Item", "Pipeline"]

# An iterable that fails this often in a row, without an item in between, will not recover.
_FAILURES = 100

# Seconds that `close` waits for each thread: a reader may be stuck in the caller's iterable for good.
_CLOSE_PATIENCE = 1.0

# Seconds that the interpreter's exit waits. An engine call ends, and a thread that comes back from one into
# an interpreter that is gone may abort the process, so the runner gets longer than any call takes.
_EXIT_PATIENCE = {"reader": 2.0, "runner": 60.0}


@dataclass
class Item:
    """A batch on its way: `value` is its images, then what each stage makes of them, at last its logits."""

    index: int
    value: Any = None
    error: BaseException | None = None
    last: bool = False  # the error ends the stream

    def apply(self, stage: Callable[[Any], Any]) -> None:
        """Replace the value by `stage(value)`, or keep the error; nothing if there is one already."""
        if self.error is None:
            try:
                self.value = stage(self.value)
            except Exception as error:
                self.value, self.error = None, error


_pipelines: weakref.WeakSet[Pipeline] = weakref.WeakSet()


class Pipeline:
    """The two threads, and the queues between them: slots -> reader -> to_run -> runner -> done -> caller.

    A slot is a place for one item; the reader takes one before it pulls, the caller gives it back. The queues
    are SimpleQueues, whose `put` may interrupt itself: `stop` runs whenever the garbage collector says so,
    also within one of them.
    """

    def __init__(self, engine: InferenceEngine, iterator: Iterator[Any], depth: int):
        self.received = 0
        self._closed = False
        self._transfers = transfers_of(engine)
        self._slots: SimpleQueue[None] = SimpleQueue()
        self._to_run: SimpleQueue[Item | None] = SimpleQueue()  # None: there are no more
        self._done: SimpleQueue[Item | None] = SimpleQueue()
        for _ in range(depth):
            self._slots.put(None)
        # The iterator is the reader's alone: it is closed when the reader ends.
        self._threads = {
            "reader": threading.Thread(
                target=_guarded,
                args=(self._read, self._to_run, iterator),
                name="effnet_fast-reader",
                daemon=True,
            ),
            "runner": threading.Thread(
                target=_guarded, args=(self._run, self._done), name="effnet_fast-runner", daemon=True
            ),
        }
        _pipelines.add(self)
        try:
            for thread in self._threads.values():
                thread.start()
        except RuntimeError:  # the system gives no more threads
            self.stop()
            raise

    def _read(self, iterator: Iterator[Any]) -> None:
        failures = 0
        while True:
            self._slots.get()
            if self._closed:
                return
            item, failure = Item(self.received), None
            try:
                item.value = next(iterator)
            except StopIteration:
                return
            except Exception as error:
                item.error = failure = error
            failures = 0 if failure is None else failures + 1
            self.received += 1
            item.apply(self._transfers.upload)
            self._to_run.put(item)
            if failures == _FAILURES:
                raise RuntimeError(
                    f"the iterable failed {_FAILURES} times in a row; its last error: {failure!r}"
                ) from failure

    def _run(self) -> None:
        while True:
            item = self._to_run.get()
            if item is None or self._closed:
                return
            item.apply(self._transfers.compute)
            self._done.put(item)
            del item  # not while this thread waits

    def take(self) -> Item | None:
        """The next item with its logits in CPU memory, or with its error; None at the end."""
        item = self._done.get()
        if item is None or self._closed:
            self._done.put(None)  # for whoever asks again
            return None
        if not item.last:
            item.apply(self._transfers.fetch)
            self._slots.put(None)
        return item

    def stop(self) -> None:
        """Tell both threads, and a waiting caller, that it is over; never waits."""
        self._closed = True
        for queue in (self._slots, self._to_run, self._done):
            queue.put(None)

    def close(self) -> None:
        """`stop`, wait for the threads a moment, and drop the items on their way."""
        self.stop()
        for thread in self._threads.values():
            _join(thread, _CLOSE_PATIENCE)
        for queue in (self._to_run, self._done):
            _clear(queue)
        self.stop()  # cleared with the rest

    def join(self) -> None:
        """Wait for the threads as the interpreter's exit does."""
        for name, thread in self._threads.items():
            _join(thread, _EXIT_PATIENCE[name])


def _guarded(work: Callable[..., None], output: SimpleQueue[Item | None], *arguments: Any) -> None:
    """Run a thread's work: whatever ends it reaches the caller after the items before it."""
    try:
        work(*arguments)
    except BaseException as error:
        output.put(Item(-1, error=error, last=True))
    finally:
        output.put(None)


def _join(thread: threading.Thread, seconds: float) -> None:
    if thread.is_alive() and thread is not threading.current_thread():
        thread.join(seconds)


def _clear(queue: SimpleQueue[Any]) -> None:
    try:
        while True:
            queue.get_nowait()
    except Empty:
        return


@atexit.register
def _stop_all() -> None:
    pipelines = list(_pipelines)
    for pipeline in pipelines:
        pipeline.stop()
    for pipeline in pipelines:
        pipeline.join()
