"""Photographs through an engine: files in, likeliest classes out, decoding and computing overlapped."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from effnet_fast.images import ImageError, load_image
from effnet_fast.inference import InferenceEngine
from effnet_fast.models import Preprocessing, model_config

__all__ = ["Guesses", "classify_files", "photo_loader"]

#: Threads that decode: Pillow releases the interpreter, and decoding a photograph takes as long as
#: classifying it.
DECODERS = 4

#: (class index, probability), likeliest first.
Guesses: TypeAlias = list[tuple[int, float]]


def photo_loader(engine: InferenceEngine) -> Callable[[Path], Tensor]:
    """A function: path -> an image as one of the engine's, without the first dimension.

    The engine's own preprocessing is used, or ImageNet's for its size. Raises ValueError for an engine whose
    images are no RGB squares; the function raises ImageError.
    """
    height, width = engine.image_size
    if height != width:
        raise ValueError(f"photographs become squares, and the engine takes {height} x {width} images")
    preprocessing = engine.preprocessing or model_config("efficientnet_b0").preprocessing
    preprocessing = dataclasses.replace(preprocessing, size=height)
    blank = torch.zeros(height, width, 3, dtype=torch.uint8)
    for normalised, layout in itertools.product((False, True), ("NHWC", "NCHW")):
        arrange = functools.partial(_arrange, preprocessing, normalised, layout)
        try:
            engine.check(arrange(blank)[None])
        except (TypeError, ValueError):
            continue
        return functools.partial(_load, preprocessing, arrange)
    raise ValueError("photographs have three channels, and the engine takes another number")


def _load(preprocessing: Preprocessing, arrange: Callable[[Tensor], Tensor], path: Path) -> Tensor:
    return arrange(load_image(path, preprocessing))


def _arrange(preprocessing: Preprocessing, normalised: bool, layout: str, pixels: Tensor) -> Tensor:
    """uint8 [H, W, 3] as an engine takes it."""
    if normalised:
        pixels = (pixels / 255 - torch.tensor(preprocessing.mean)) / torch.tensor(preprocessing.std)
    return pixels if layout == "NHWC" else pixels.permute(2, 0, 1)


def classify_files(
    engine: InferenceEngine, files: Sequence[Path], load: Callable[[Path], Tensor], top: int
) -> Iterator[tuple[Path, Guesses | ImageError]]:
    """Each of `files`, in order, with its `top` likeliest classes, or with why there are none.

    Decoding and computing overlap; `load` is called in other threads.
    """
    # Of every batch, and of what follows the last one: its files, those that could not be read among them.
    read: deque[list[tuple[Path, ImageError | None]]] = deque()
    with engine.stream(_batches(files, load, engine.batch_size, read)) as stream:
        for logits in stream:
            values, indices = logits.softmax(1).topk(min(top, logits.shape[1]), dim=1)
            guesses = zip(indices.tolist(), values.tolist(), strict=True)
            for path, error in read.popleft():
                yield path, error or list(zip(*next(guesses), strict=True))
    for path, error in itertools.chain(*read):
        yield path, error


def _batches(
    files: Sequence[Path],
    load: Callable[[Path], Tensor],
    size: int,
    read: deque[list[tuple[Path, ImageError | None]]],
) -> Iterator[Tensor]:
    """Batches of `size` images that could be read; what they are made of is appended to `read` before."""
    images: list[Tensor] = []
    names: list[tuple[Path, ImageError | None]] = []
    for path, loaded in _decoded(files, load, ahead=size + DECODERS):
        if isinstance(loaded, ImageError):
            names.append((path, loaded))
            continue
        names.append((path, None))
        images.append(loaded)
        if len(images) == size:
            read.append(names)
            yield torch.stack(images)
            images, names = [], []
    read.append(names)
    if images:
        yield torch.stack(images)


def _decoded(
    files: Sequence[Path], load: Callable[[Path], Tensor], ahead: int
) -> Iterator[tuple[Path, Tensor | ImageError]]:
    """What `load` gives for each of `files`, in order; `ahead` of them are decoded in advance."""

    def attempt(path: Path) -> Tensor | ImageError:
        try:
            return load(path)
        except ImageError as error:
            # Without the frames that it was raised in, which hold the picture as far as it was decoded.
            return ImageError(error.path, error.reason)

    pool = ThreadPoolExecutor(DECODERS)
    pending: deque[tuple[Path, Future]] = deque()
    try:
        for path in files:
            pending.append((path, pool.submit(attempt, path)))
            if len(pending) > ahead:
                path, future = pending.popleft()
                yield path, future.result()
        while pending:
            path, future = pending.popleft()
            yield path, future.result()
    finally:
        pool.shutdown(cancel_futures=True)
