"""Blocks that we know and leave alone all the same, since PyTorch's own operators are faster there.

Of the 249 distinct blocks of the 24 models in the README's matrix, none is slower fused than as its own
modules on the same channels_last maps, in float32 or bfloat16 (`python -m benchmarks fuse --blocks`; the
least gain is 1.04x, a FusedMBConv of 64 > 256 > 64 channels). What loses are layers by themselves, in
networks that we know little else of. Milliseconds on 2 cores of AMD Zen 5 (AVX-512 with bfloat16), batch 8,
medians of at least 5 alternating rounds, eager / fused:

    by itself                      float32 NCHW   float32 NHWC   bfloat16 NCHW  bfloat16 NHWC
    squeeze-excite,  96 @112       2.65 / 8.01    2.76 / 2.59    3.64 / 5.65    3.68 / 3.32
    squeeze-excite, 144 @56        0.61 / 2.14    0.64 / 0.48    0.86 / 2.11    0.99 / 0.66
    squeeze-excite, 480 @14        0.30 / 0.25    0.30 / 0.11    0.35 / 0.31    0.34 / 0.17
    3x3,  64 >  64 @56             5.01 / 4.78    4.43 / 4.20    2.67 / 2.37    2.23 / 2.04
    3x3,  64 > 128 @56, stride 2   2.81 / 3.50    2.43 / 2.92    1.48 / 1.34    1.15 / 1.07
    3x3, 128 > 128 @28             4.51 / 5.68    4.00 / 5.46    2.21 / 2.11    2.01 / 1.98
    3x3, 256 > 256 @14             4.51 / 5.66    4.07 / 5.44    2.16 / 2.05    1.93 / 1.95
    3x3, 512 > 512 @7              5.30 / 4.77    4.35 / 4.52    2.19 / 2.05    2.23 / 2.02
    1x1,  64 > 256 @56             6.77 / 2.82    3.82 / 2.24    3.27 / 1.60    1.94 / 1.17
"""

from __future__ import annotations

from effnet_fast.fusion.calls import calls_of
from effnet_fast.fusion.spec import Block, SqueezeExcite

__all__ = ["slower"]

# Of the widths measured, the largest output of a dense convolution that gains in every column above.
_WIDEST_DENSE = 64


def slower(block: Block, device_type: str) -> str:
    """Why `block` is better left alone on this kind of device, in one clause; "" where it is not.

    Args:
        device_type: of its weights. What was measured on CPUs alone holds for "cpu" alone.
    """
    if all(isinstance(part, SqueezeExcite) for part in block.parts):
        # On any device: it reads and writes as many bytes as PyTorch, and NCHW maps are rearranged first. The
        # network behind then runs in channels_last memory, which PyTorch's group norm takes twice as long for
        # (timm's efficientnet_b0_gn in bfloat16: 60 ms a batch, 89 with its squeeze-excites fused).
        return "slower than PyTorch's own here: a squeeze-excite by itself leaves nothing to fuse it with"
    calls = calls_of(block)
    if device_type == "cpu" and len(calls) == 1 and calls[0].operator == "dense_conv":
        convolution = calls[0].spatial
        if convolution.out_channels > _WIDEST_DENSE:
            return (
                f"slower than PyTorch's own here: a {convolution.kernel} x {convolution.kernel} convolution "
                f"to {convolution.out_channels} channels by itself"
            )
    return ""
