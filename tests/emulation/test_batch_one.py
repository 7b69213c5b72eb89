"""One image on a GPU of 132 multiprocessors: how the CUDA launch code divides every layer of B0 and B4.

Nothing is run: blocks are counted by the launch code that the library has.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from effnet_fast.inference import fold, network_layers
from effnet_fast.inference.layers import Layer
from effnet_fast.models import create_model, model_config
from tests.emulation.build import EMULATION
from tests.emulation.emulator import emulate

MULTIPROCESSORS, SHARED_BYTES = 132, 228 << 10
MODELS = ("efficientnet_b0", "efficientnet_b4")

# Layers of fewer blocks: input and output channels, output rows -> blocks. Divided as far as it goes: to
# 16 x 16 outputs of a product (64 x 16 of a head, which sums rows), 16 channels of two rows of a filter:
FINEST = {
    ("pointwise_conv", 240, 80, 14): 65,
    ("pointwise_conv", 480, 80, 14): 65,
    ("pointwise_conv", 480, 112, 14): 91,
    ("pointwise_conv", 672, 112, 14): 91,
    ("pointwise_conv", 672, 192, 7): 48,
    ("pointwise_conv", 1152, 192, 7): 48,
    ("pointwise_conv", 1152, 320, 7): 80,
    ("depthwise_conv_gate", 240, 240, 14): 105,
    # Half as many rows would be 28 sums, and a launch to add them up.
    ("depthwise_conv_gate", 144, 144, 28): 126,
    ("head_pool", 320, 1280, 1): 80,
    ("head_pool", 448, 1792, 1): 112,
}  # fmt: skip
# ... or so that a finer division, for which there are tiles, reads so much more that it takes over a quarter
# longer by the count of matrix_launch.h:
COARSER = {
    ("pointwise_conv", 112, 672, 24): 99,
    ("pointwise_conv", 960, 272, 12): 81,
    ("pointwise_conv", 1632, 272, 12): 81,
    ("pointwise_conv", 272, 1632, 12): 78,
    ("pointwise_conv", 1632, 448, 12): 126,
    ("pointwise_conv", 448, 2688, 12): 126,
    ("pointwise_conv", 2688, 448, 12): 126,
}  # fmt: skip


def layers(model: str) -> Iterator[Layer]:
    with torch.device("meta"):
        network = fold(create_model(model).eval())
    size = model_config(model).resolution
    yield from network_layers(network, (size, size))


def counted(op: str, file: str, **parameters: int) -> list[int]:
    """Launches; blocks of the largest, their threads and shared memory."""
    outputs = {"launch": torch.empty(4, dtype=torch.int64)}
    if op.endswith("_tile"):
        outputs["tile"] = torch.empty(1, dtype=torch.int32)
    emulate(op, {}, outputs, source=EMULATION / f"bind_{file}.cpp", **parameters)
    return outputs["launch"].tolist()


def launch_of(layer: Layer, images: int = 1) -> list[int] | None:
    """As `counted`, of a 16-bit network; None for the stem."""
    c, h, w = layer.x.shape
    gpu = dict(multiprocessors=MULTIPROCESSORS, shared_bytes=SHARED_BYTES)
    product = dict(n=images, pixels=h * w, c=c, o=layer.y.shape[0], gated=int(layer.gate is not None), **gpu)
    if layer.operator == "pointwise_conv":
        single = layer.x.single
        return counted("pointwise_conv_" + ("single" if single else "tile"), "pointwise_conv", **product)
    if layer.operator == "head_pool":
        return counted("head_pool_tile", "head_pool", **product)
    if layer.operator == "depthwise_conv_gate":
        top, left, bottom, right = layer.padding
        return counted(
            "depthwise_conv_gate_launch", "depthwise_conv", n=images, c=c, h=h, w=w, kernel=layer.kernel,
            stride=layer.stride, top=top, left=left, bottom=bottom, right=right, s=layer.squeeze,
            multiprocessors=MULTIPROCESSORS,
        )  # fmt: skip
    assert layer.operator == "stem_conv"
    return None


@pytest.mark.parametrize("model", MODELS)
def test_every_layer_has_work_for_every_multiprocessor(model) -> None:
    found = {}
    for layer in layers(model):
        if (launch := launch_of(layer)) is None:
            continue
        blocks = launch[1]
        if blocks < MULTIPROCESSORS:
            found[layer.operator, layer.x.shape[0], layer.y.shape[0], layer.y.shape[1]] = blocks
    known = FINEST | COARSER
    assert found == {shape: known.get(shape) for shape in found}
    for op, _, out_channels, rows in found:
        finest = -(-rows * rows // 16) * (out_channels // 16)
        if op == "pointwise_conv":
            assert (finest < MULTIPROCESSORS) == ((op, _, out_channels, rows) in FINEST)


def test_no_layer_of_one_image_waits_for_a_single_block_s_squeeze_excite() -> None:
    """The block that finishes last would load hundreds of weights, one by one: it has launches of its own."""
    for layer in layers("efficientnet_b0"):
        if layer.operator == "depthwise_conv_gate":
            launches, *_ = launch_of(layer)
            # Depthwise, squeeze and excite, and before these the sums where the map has more than 16 tiles.
            assert launches == (4 if layer.y.shape[1] > 28 else 3)
            # With an image for every multiprocessor the others hide it, as long as it is small.
            small = 2 * 4 * layer.squeeze * layer.x.shape[0] <= 64 << 10
            many, *_ = launch_of(layer, images=256)
            assert (many == 1) == small


def test_the_classifier_reads_its_weights_with_every_multiprocessor() -> None:
    *_, classifier = layers("efficientnet_b0")
    for images, blocks in ((1, 250), (8, 250), (32, 1000)):
        assert launch_of(classifier, images)[1] == blocks
