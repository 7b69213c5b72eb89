"""How many weights a layer has, counted from its shapes."""

from __future__ import annotations

from effnet_fast.inference.layers import Layer


def is_depthwise(layer: Layer) -> bool:
    """Whether the convolution with a kernel, alone or inside a larger operator, is a depthwise one."""
    return layer.operator.startswith(("depthwise", "expand_depthwise", "mbconv"))


def squeeze_excite_macs(layer: Layer) -> int:
    """Multiply-adds of one image in both layers of the squeeze-excite; also the number of their weights."""
    return 2 * layer.squeeze * layer.filtered_channels


def weight_bytes(layer: Layer, storage: int) -> int:
    """Bytes of the weights in `storage` bytes each; biases and squeeze-excite are float32."""
    channels_in, channels_out = layer.x.shape[0], layer.y.shape[0]
    filtered = layer.filtered_channels
    squeeze_excite = 4 * (squeeze_excite_macs(layer) + bool(layer.squeeze) * (layer.squeeze + filtered))
    if layer.operator == "squeeze_excite_gate":
        return squeeze_excite
    weights = layer.kernel**2 * filtered * (1 if is_depthwise(layer) else channels_in)
    biases = filtered
    if layer.expands:
        weights += channels_in * filtered
        biases += filtered
    if layer.is_stem_block:
        weights += layer.depthwise_kernel**2 * filtered
        biases += filtered
    if layer.is_whole_block or layer.operator == "stem_block":
        weights += filtered * channels_out
        biases += channels_out
    return storage * weights + 4 * biases + squeeze_excite
