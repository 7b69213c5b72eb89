"""Interprets the last program alone of a call on tensors of more than 2**31 elements: `... last_program OP`.

Its offsets are the largest, so an index that is not 64-bit where it must be ends outside the tensor, and this
process with it. The tensors are address space: what the program does not touch has no memory behind it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from triton.runtime import interpreter

from effnet_fast.ops import reference
from effnet_fast.ops.device_weights import arrange
from effnet_fast.ops.schemas import OPERATORS
from effnet_fast.triton_kernels.device import INTERPRETER
from effnet_fast.triton_kernels.launch import Launch

IMAGES, SIDE, CHANNELS = 65, 512, 128
#: The lower right corner that a 16 x 16 tile with a 3 x 3 kernel reads: one line above, one column before.
CORNER = 17
PADDING = (1, 1, 1, 1)


def run_last(launch: Launch) -> None:
    """The program of `launch` with the largest number."""
    builder, executor = interpreter.interpreter_builder, interpreter.GridExecutor
    builder.set_grid_idx = lambda *_: setattr(builder, "grid_idx", (launch.programs - 1, 0, 0))
    # It would copy every tensor onto itself, page by page.
    executor._restore_args_dev = lambda *_: None
    replace(launch, programs=1).run()


def maps(channels: int, images: int = IMAGES, side: int = SIDE) -> Tensor:
    x = torch.empty((images, channels, side, side), dtype=torch.bfloat16, memory_format=torch.channels_last)
    assert x.numel() > 2**31
    return x


def weights_of(op: str, out_channels: int) -> list[Tensor]:
    kernel = 1 if op in ("pointwise_conv", "head_pool") else 3
    inputs = 1 if op.startswith("depthwise") else CHANNELS
    weight = torch.randn(out_channels, inputs, kernel, kernel) / (inputs * kernel**2) ** 0.5
    return [weight.bfloat16(), torch.randn(out_channels)]


def launched(op: str, outputs: Sequence[Tensor], *arguments, weights: list[Tensor], at: int = 1) -> None:
    """`op` on packed-order `arguments`, into which the weights are put at position `at`."""
    arranged = arrange(OPERATORS[op], weights, "relu")
    module = importlib.import_module(f"effnet_fast.triton_kernels.{op}")
    (launch,) = module.launches(INTERPRETER, outputs, *arguments[:at], arranged, *arguments[at:])
    run_last(launch)


def agree(y: Tensor, expected: Tensor) -> None:
    """On the last channels: a program has 16 at the least."""
    torch.testing.assert_close(y[..., -16:].float(), expected[..., -16:].float(), rtol=2e-2, atol=2e-2)


def corner(x: Tensor, size: int) -> Tensor:
    return x[-1:, :, -size:, -size:]


def pointwise_conv() -> None:
    x, y, weights = maps(CHANNELS), maps(CHANNELS), weights_of("pointwise_conv", CHANNELS)
    pixels = x[-1, :, -1, -16:]
    pixels.copy_(torch.randn(pixels.shape))
    launched("pointwise_conv", [y], x, CHANNELS, "relu", None, None, weights=weights)
    expected = reference.pointwise_conv(pixels[None, :, None], *weights, "relu")
    agree(y[-1, :, -1, -16:].t(), expected[0, :, 0].t())


def _tile(op: str, outputs: Sequence[Tensor], *arguments, weights: list[Tensor]) -> None:
    x = arguments[0]
    corner(x, CORNER).copy_(torch.randn(1, CHANNELS, CORNER, CORNER))
    launched(op, outputs, *arguments, weights=weights)


def depthwise_conv_pool() -> None:
    x, y, weights = maps(CHANNELS), maps(CHANNELS), weights_of("depthwise_conv", CHANNELS)
    sums = torch.empty(IMAGES, (SIDE // 16) ** 2, CHANNELS)
    _tile("depthwise_conv_pool", [y, sums], x, 3, 1, PADDING, "relu", weights=weights)
    expected, total = reference.depthwise_conv_pool(corner(x, CORNER), *weights, 1, (0, 0, 1, 1), "relu")
    agree(corner(y, 16)[0].permute(1, 2, 0), expected[0].permute(1, 2, 0))
    agree(sums[-1, -1], total[0].sum(0))


def dense_conv() -> None:
    x, y, weights = maps(CHANNELS), maps(CHANNELS), weights_of("dense_conv", CHANNELS)
    _tile("dense_conv", [y], x, CHANNELS, 3, 1, PADDING, "relu", None, weights=weights)
    expected = reference.dense_conv(corner(x, CORNER), *weights, 1, (0, 0, 1, 1), "relu")
    # A program has pixels of one line.
    agree(y[-1, :, -1, -16:].t(), expected[0, :, -1].t())


def head_pool() -> None:
    # Few pixels an image, many images: a program reads all of its images.
    images, side = (2**31 // (4 * CHANNELS)) + 9, 2
    x, weights = maps(CHANNELS, images, side), weights_of("head_pool", CHANNELS)
    x[-64:].copy_(torch.randn(64, CHANNELS, side, side))
    y = torch.empty(images, CHANNELS)
    launched("head_pool", [y], x, CHANNELS, "relu", weights=weights)
    agree(y[-1], reference.head_pool(x[-1:], *weights, "relu")[0])


def stem_conv() -> None:
    """Strides inside one image pass 2**31 elements: planes that lie 2**30 bytes apart."""
    memory = torch.empty(3 * 2**30, dtype=torch.uint8)
    image = memory.as_strided((1, 3, 33, 33), (3 * 2**30, 2**30, 33, 1))
    image.copy_(torch.randint(0, 256, image.shape, dtype=torch.uint8))
    weight, bias = torch.randn(32, 3, 3, 3).bfloat16() / 5, torch.randn(32)
    y = torch.empty(1, 32, 33, 33, dtype=torch.bfloat16, memory_format=torch.channels_last)
    mean, std = torch.full((3,), 0.5), torch.full((3,), 0.25)
    arguments = (image, 32, 3, 1, PADDING, "relu", mean, std, torch.bfloat16)
    launched("stem_conv", [y], *arguments, weights=[weight, bias])
    expected = reference.stem_conv(image, weight, bias, 1, PADDING, "relu", mean, std, torch.bfloat16)
    agree(y[0, :, -1, -1], expected[0, :, -1, -1])


if __name__ == "__main__":
    torch.manual_seed(0)
    with torch.no_grad():
        globals()[sys.argv[1]]()
