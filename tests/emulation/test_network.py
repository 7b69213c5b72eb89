"""A whole network on the emulated CUDA kernels: every layer of the three-kernel plan, one behind the other.

The network is the tiny one of the engine's tests: B0's blocks, with and without expansion, residual and
stride, k 3 and 5. The logits are held to the budget of an engine's, so that what one kernel hands to the next
is tested as well: layouts, storage types, the gate, the map kept for a residual.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import pytest
import torch
from torch import Tensor

from effnet_fast.inference import fold, network_layers
from effnet_fast.inference.block_forms import BlockForm
from effnet_fast.inference.layers import IMAGE, Layer
from effnet_fast.inference.packing import layer_weights
from effnet_fast.models import create_model
from effnet_fast.models.efficientnet import EfficientNet
from effnet_fast.testing import LOW_DTYPES, arrange
from tests.emulation import (
    test_depthwise_conv,
    test_expand_depthwise,
    test_head_pool,
    test_pointwise_conv,
    test_squeeze_excite_gate,
    test_stem_block,
    test_stem_conv,
)
from tests.inference.test_engine_parity import budget, one_channel
from tests.networks import make_tiny, randomise_batch_norms

SIZE = (33, 30)
IMAGES = 2
# A GPU's multiprocessors give the smallest blocks, one gives the largest, with several images each.
FEW, MANY = 1, 132

Values = dict[str, Tensor]  # by the names of the plan
Weights = tuple[Tensor, ...]
Change = Callable[[Layer], Layer]


@dataclasses.dataclass(frozen=True)
class Emulation:
    """A forward pass, layer by layer.

    Attributes:
        apart: pooled sums and `squeeze_excite_gate` instead of `depthwise_conv_gate`.
        multiprocessors: of the GPU.
        normalisation: mean and std of uint8 images, [C] float32 each.
    """

    dtype: torch.dtype
    apart: bool = False
    multiprocessors: int = MANY
    normalisation: tuple[Tensor | None, Tensor | None] = (None, None)

    def logits(self, images: Tensor, layers: Sequence[Layer], weights: Mapping[str, Weights]) -> Tensor:
        """[N, num_classes] float32, of `images` [N, C, H, W]."""
        values = {IMAGE: images}
        for layer in layers:
            run = getattr(self, layer.operator)
            values.update(run(layer, weights[layer.name], values))
        return values[layers[-1].y.name].flatten(1)

    def stem_conv(self, layer: Layer, weights: Weights, values: Values) -> Values:
        geometry = layer.stride, layer.padding, layer.activation
        args = [values[layer.x.name], *weights, *geometry, *self.normalisation, self.dtype]
        return {layer.y.name: test_stem_conv.run(args, multiprocessors=self.multiprocessors)}

    def stem_block_sums(self, layer: Layer, weights: Weights, values: Values) -> Values:
        geometry = layer.stride, layer.padding, layer.activation
        args = [values[layer.x.name], *weights, *geometry, *self.normalisation, self.dtype]
        return {layer.y.name: test_stem_block.run("stem_block_sums", args)}

    def stem_block(self, layer: Layer, weights: Weights, values: Values) -> Values:
        geometry = layer.stride, layer.padding, layer.activation
        gate = None if layer.gate is None else values[layer.gate.name]
        args = [values[layer.x.name], *weights, *geometry, gate, *self.normalisation, self.dtype]
        return {layer.y.name: test_stem_block.run("stem_block", args)}

    def depthwise_conv(self, layer: Layer, weights: Weights, values: Values) -> Values:
        args = [values[layer.x.name], *weights, layer.stride, layer.padding, layer.activation]
        return {layer.y.name: self._depthwise("depthwise_conv", args)}

    def depthwise_conv_gate(self, layer: Layer, weights: Weights, values: Values) -> Values:
        convolution, squeeze_excite = weights[:2], weights[2:]
        functions = layer.se_activation, layer.gate_function
        args = [values[layer.x.name], *convolution, layer.stride, layer.padding, layer.activation]
        if not self.apart:
            y, gates = self._depthwise("depthwise_conv_gate", [*args, *squeeze_excite, *functions])
        else:
            y, sums = self._depthwise("depthwise_conv_pool", args)
            args = [sums, y.shape[2] * y.shape[3], *squeeze_excite, *functions]
            gates = test_squeeze_excite_gate.run(args, multiprocessors=self.multiprocessors)
        return {layer.y.name: y, layer.gates.name: gates}

    def expand_depthwise_pool(self, layer: Layer, weights: Weights, values: Values) -> Values:
        expand, depthwise = weights[:2], weights[2:]
        geometry = layer.stride, layer.padding, layer.activation
        args = [values[layer.x.name], *expand, layer.expand_activation, *depthwise, *geometry]
        fused = self.dtype != torch.float32 and layer.x.shape[0] % 8 == 0
        by = test_expand_depthwise.OP if fused else test_expand_depthwise.COMPOSED
        y, sums = test_expand_depthwise.run(layer.operator, args, by=by, multiprocessors=self.multiprocessors)
        return {layer.y.name: y, layer.sums.name: sums}

    def squeeze_excite_gate(self, layer: Layer, weights: Weights, values: Values) -> Values:
        args = [values[layer.x.name], layer.count, *weights, layer.activation, layer.gate_function]
        return {layer.y.name: test_squeeze_excite_gate.run(args, multiprocessors=self.multiprocessors)}

    def _depthwise(self, operator: str, args: list) -> Tensor | tuple[Tensor, Tensor]:
        return test_depthwise_conv.run(operator, args, multiprocessors=self.multiprocessors)

    def pointwise_conv(self, layer: Layer, weights: Weights, values: Values) -> Values:
        gate, residual = (None if v is None else values[v.name] for v in (layer.gate, layer.residual))
        args = [values[layer.x.name], *weights, layer.activation, gate, residual]
        return {layer.y.name: test_pointwise_conv.run(args, multiprocessors=self.multiprocessors)}

    def head_pool(self, layer: Layer, weights: Weights, values: Values) -> Values:
        pooled = test_head_pool.run([values[layer.x.name], *weights, layer.activation])
        return {layer.y.name: pooled[:, :, None, None]}


def emulate(
    model: EfficientNet, images: Tensor, change: Change | None = None,
    form: BlockForm = BlockForm.THREE_KERNELS, **options,
) -> Tensor:  # fmt: skip
    """Logits of `images` by the emulated kernels; `change` may break layers of the plan."""
    emulation = Emulation(**options)
    network = fold(model)
    weights = {
        layer.name: layer.rounded(emulation.dtype, torch.device("cpu"))
        for layer in layer_weights(network, forms=form)
    }
    layers = network_layers(network, SIZE, forms=form)
    return emulation.logits(images, [change(layer) for layer in layers] if change else layers, weights)


@functools.cache
def published() -> EfficientNet:
    return make_tiny()


def normal(channels: int = 3) -> Tensor:
    return torch.randn(IMAGES, channels, *SIZE)


@pytest.mark.parametrize("multiprocessors", [FEW, MANY])
@pytest.mark.parametrize("apart", [False, True], ids=["gates in depthwise_conv", "gates apart"])
@pytest.mark.parametrize("dtype", LOW_DTYPES)
def test_logits_are_the_models(dtype, apart, multiprocessors) -> None:
    model, images = published(), normal()
    y = emulate(model, images, dtype=dtype, apart=apart, multiprocessors=multiprocessors)
    budget(model, images, dtype).assert_within(y)


@pytest.mark.parametrize("dtype", LOW_DTYPES)
@pytest.mark.parametrize(
    "changes",
    [
        {"padding": "symmetric", "activation": "hardswish"},
        {"squeeze_ratio": None, "activation": "relu6"},
        {"in_chans": 1, "preprocessing": one_channel()},
    ],
    ids=["symmetric hardswish", "no squeeze-excite", "one channel"],
)
def test_other_networks(changes, dtype) -> None:
    model = make_tiny(**changes)
    images = normal(model.config.in_chans)
    budget(model, images, dtype).assert_within(emulate(model, images, dtype=dtype))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced"])
@pytest.mark.parametrize("dtype", LOW_DTYPES)
def test_pixels_are_normalised_by_the_stem(dtype, layout) -> None:
    pixels = torch.randint(0, 256, (IMAGES, 3, *SIZE), dtype=torch.uint8)
    mean, std = torch.tensor([0.3, 0.5, 0.7]), torch.tensor([0.2, 0.3, 0.4])
    per_channel = [statistic.double()[:, None, None] for statistic in (mean, std)]
    images = ((pixels.double() / 255 - per_channel[0]) / per_channel[1]).float()
    y = emulate(published(), arrange(pixels, layout), dtype=dtype, normalisation=(mean, std))
    budget(published(), images, dtype).assert_within(y)


@pytest.mark.parametrize(
    "dtype",
    [torch.float16, *(pytest.param(d, marks=pytest.mark.slow) for d in (torch.bfloat16, torch.float32))],
)
def test_b0(dtype) -> None:
    """All of its layers at full width: every shape of weights that the kernels meet, on small maps."""
    model = randomise_batch_norms(create_model("efficientnet_b0"))
    images = normal()
    budget(model, images, dtype).assert_within(emulate(model, images, dtype=dtype))


@pytest.mark.parametrize("dtype", LOW_DTYPES)
def test_expansions_fused_into_the_depthwise_convolutions(dtype) -> None:
    model, images = published(), normal()
    y = emulate(model, images, form=BlockForm.EXPANSION_FUSED, dtype=dtype)
    budget(model, images, dtype).assert_within(y)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("changes", [{}, {"squeeze_ratio": None, "activation": "relu6"}], ids=["se", "no se"])
def test_stem_and_first_block_together(changes, dtype) -> None:
    model = make_tiny(stem_channels=16, **changes)  # whose first block has 8, and so adds no input
    pixels = torch.randint(0, 256, (IMAGES, 3, *SIZE), dtype=torch.uint8)
    mean, std = torch.tensor([0.3, 0.5, 0.7]), torch.tensor([0.2, 0.3, 0.4])
    per_channel = [statistic.double()[:, None, None] for statistic in (mean, std)]
    images = ((pixels.double() / 255 - per_channel[0]) / per_channel[1]).float()
    y = emulate(model, pixels, form=BlockForm.WITH_STEM, dtype=dtype, normalisation=(mean, std))
    budget(model, images, dtype).assert_within(y)


# What a wrong kernel would do, to one layer of the network at a time.
FAULTS: dict[str, Change] = {
    "no gate": lambda layer: dataclasses.replace(layer, gate=None),
    "no residual": lambda layer: dataclasses.replace(layer, residual=None),
    "padding of the other side": lambda layer: dataclasses.replace(
        layer, padding=(*layer.padding[2:], *layer.padding[:2])
    ),
    "no activation": lambda layer: dataclasses.replace(layer, activation="identity"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_wrong_layer_is_seen_in_the_logits(fault) -> None:
    dtype = torch.bfloat16  # whose budget is the widest
    model, images, break_layer = published(), normal(), FAULTS[fault]
    expected = budget(model, images, dtype)
    broken = [layer.name for layer in network_layers(fold(model), SIZE) if break_layer(layer) != layer]
    assert broken
    for name in broken:
        y = emulate(
            model, images, lambda layer, name=name: break_layer(layer) if layer.name == name else layer,
            dtype=dtype,
        )  # fmt: skip
        assert not expected.compare(y).passed, name
