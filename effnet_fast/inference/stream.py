"""`engine.stream(batches)`: logits of one batch after the other while the next are read and computed."""

from __future__ import annotations

import logging
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from torch import Tensor

from effnet_fast.inference.inputs import check_positive
from effnet_fast.inference.pipeline import Pipeline

if TYPE_CHECKING:
    from effnet_fast.inference.engine import InferenceEngine

__all__ = ["Stream"]

_logger = logging.getLogger("effnet_fast")

# Errors of items left out that are kept.
_ERRORS = 1000


class Stream(Iterator[Tensor]):
    """Iterator over the logits of an iterable of image batches, in order, one result for each.

    ::

        loader = DataLoader(dataset, batch_size=engine.batch_size, num_workers=8)
        with engine.stream(map(itemgetter(0), loader)) as stream:  # without the labels
            for logits in stream:
                classes = logits.argmax(1)

    A reader thread takes batches from the iterable and brings them to the device, a runner thread computes,
    and the caller's thread waits for results, so that the three overlap; on a GPU copies in, kernels and
    copies out have a CUDA stream each. Both threads start at once and read ahead, `depth` batches at most.
    Several streams of one engine, and an iterable that calls the engine itself, are fine.

    Args:
        engine: anything with `engine(images)`, `engine.check(images)` and `engine.device`.
        iterable: of batches as `engine(images)` takes them, of any size; `iter()` is called on it here, all
            else in the reader thread. A batch must not be overwritten before its result has come.
        depth: batches held between the iterable and the caller at most, at least 1 (reading and computing
            then take turns).
        on_error: what happens to a batch that the engine refuses or fails on, or in whose place the iterable
            raises. "raise": `next()` raises that error, and the `next()` after it goes on with the next
            batch. "skip": it is left out, logged as a warning and kept in `errors`. A callable: it is left
            out, and `on_error(index, error)` is called in the caller's thread, in order.

    Attributes:
        received: batches taken from the iterable so far, failed ones included.
        yielded: results given to the caller.
        failed: batches that gave none. At the end of the iterable `yielded + failed == received`.
        errors: (index, error) of the last 1000 batches left out by "skip", without tracebacks, which would
            keep images alive.

    Each `next()` gives float32 [N, classes] in CPU memory. An iterable that raises is asked for its next
    batch all the same: `map` and a DataLoader have one, a generator is over. One that fails 100 times in a
    row ends the stream with a RuntimeError; KeyboardInterrupt, SystemExit and their like end it as they are.

    `close()`, leaving the `with` block, or dropping the stream stops both threads; the iterable is not asked
    any further. One thread at a time may call `next()`; any may call `close()`.

    Raises: TypeError for an iterable that is none, and for a Tensor, whose items are single images;
        TypeError or ValueError for a depth or an on_error outside its range.
    """

    def __init__(
        self,
        engine: InferenceEngine,
        iterable: Iterable[Tensor],
        *,
        depth: int = 4,
        on_error: str | Callable[[int, Exception], object] = "raise",
    ):
        if isinstance(iterable, Tensor):
            raise TypeError(
                "iterable must give batches of images, got a Tensor, which gives single images: "
                "use images.split(batch_size)"
            )
        check_positive("depth", depth)
        if on_error not in ("raise", "skip") and not callable(on_error):
            raise ValueError(f'on_error must be "raise", "skip" or a callable, got {on_error!r}')
        try:
            iterator = iter(iterable)
        except TypeError as error:
            if hasattr(type(iterable), "__iter__"):
                raise  # its own error, from within
            raise TypeError(
                f"iterable must give batches of images, got {type(iterable).__name__}, which is not iterable"
            ) from error
        self.yielded = 0
        self.failed = 0
        self.errors: deque[tuple[int, Exception]] = deque(maxlen=_ERRORS)
        self._on_error = on_error
        # The threads know the pipeline and not this object, which can so be collected while they wait.
        self._pipeline = Pipeline(engine, iterator, depth)
        self._finalizer = weakref.finalize(self, self._pipeline.stop)
        self._finalizer.atexit = False  # the pipeline's own exit handler does it, and waits

    @property
    def received(self) -> int:
        return self._pipeline.received

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Tensor:
        while True:
            item = self._pipeline.take()
            if item is None:
                raise StopIteration
            # An error knows the frames that it was raised in. What they name must not name it in turn, nor
            # this frame, else all of it lives until the garbage collector comes.
            error, item.error = item.error, None
            try:
                if error is None:
                    self.yielded += 1
                    return item.value
                if item.last:
                    self._pipeline.stop()
                    raise error
                self.failed += 1
                if self._on_error == "raise":
                    raise error
                self._leave_out(item.index, error)
            finally:
                del item, error

    def _leave_out(self, index: int, error: Exception) -> None:
        if self._on_error == "skip":
            _logger.warning("stream: batch %d is left out: %s: %s", index, type(error).__name__, error)
            self.errors.append((index, _without_tracebacks(error)))
        else:
            self._on_error(index, error)

    def close(self) -> None:
        """Stop both threads and drop what they hold; waits a moment for them. `next()` is at its end then."""
        self._pipeline.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _without_tracebacks(error: BaseException) -> BaseException:
    """`error`, and the errors that it came from, without the frames in which they were raised."""
    pending: list[BaseException | None] = [error]
    seen = set()
    while pending:
        this = pending.pop()
        if this is not None and id(this) not in seen:
            seen.add(id(this))
            this.__traceback__ = None
            pending += [this.__cause__, this.__context__]
    return error
