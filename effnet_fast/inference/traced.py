"""An engine inside a compiled function: one operator, which the compiler sees and does not look into.

`torch.compile(lambda x: engine(x).softmax(1), fullgraph=True)` works: while a compiler traces, a call of an
engine becomes `effnet_fast::run_engine(images, number, classes)`. The number stands for an engine of this
process and is drawn at random, so that no graph that left its process meets another engine; what is exported
is `engine.as_module()`.
"""

from __future__ import annotations

import secrets
import weakref
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from effnet_fast.ops.schemas import LIBRARY, overload

if TYPE_CHECKING:
    from effnet_fast.inference.engine import InferenceEngine

__all__ = ["number_of", "run_engine"]

_engines: weakref.WeakValueDictionary[int, InferenceEngine] = weakref.WeakValueDictionary()

LIBRARY.define(
    "run_engine(Tensor images, int number, int classes, Device device) -> Tensor",
    # Unsafe: an engine captures graphs of its own when they are first needed, which must not happen while a
    # compiler captures one.
    tags=(torch.Tag.pt2_compliant_tag, torch.Tag.cudagraph_unsafe),
)


def number_of(engine: InferenceEngine) -> int:
    """A new number, which stands for `engine` as long as it lives."""
    number = secrets.randbits(62)
    _engines[number] = engine
    return number


def _run(images: Tensor, number: int, classes: int, device: torch.device) -> Tensor:
    engine = _engines.get(number)
    if engine is None:
        raise RuntimeError(
            "this compiled function calls an InferenceEngine that is not in this process (any more); "
            "to export a network use engine.as_module()"
        )
    return engine(images)


def _fake(images: Tensor, number: int, classes: int, device: torch.device) -> Tensor:
    # Asked here and not in the engine's call, where torch.compile's tracer takes it for true as well.
    if torch.compiler.is_exporting():
        raise RuntimeError(
            "an InferenceEngine belongs to its process and is not exported: export engine.as_module()"
        )
    return images.new_empty((images.shape[0], classes), dtype=torch.float32, device=device)


LIBRARY.impl("run_engine", _run, "CompositeExplicitAutograd")
torch.library.register_fake("effnet_fast::run_engine", _fake, lib=LIBRARY)
run_engine = overload("run_engine")
