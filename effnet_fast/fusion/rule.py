"""Blocks that we know and leave alone all the same, since PyTorch's own operators are faster there.

Of the 249 distinct blocks of the 24 models in the README's matrix, none is slower fused than as its own
modules on the same channels_last maps, in float32 or bfloat16 (`python -m benchmarks fuse --blocks`; the
least gain is 1.04x, a FusedMBConv of 64 > 256 > 64 channels). What loses are layers by themselves, in
networks that we know little else of: `python -m benchmarks fuse --alone` times such layers fused all the
same, and says where this rule and the times disagree. Eager's time over fused, 2 cores of AMD Zen 5 (AVX-512
with bfloat16), batch 8, from benchmarks/results/amd-epyc-2c-avx512bf16/fuse-alone.json:

    by itself                          float32 NCHW     float32 NHWC     bfloat16 NCHW    bfloat16 NHWC
    squeeze-excite, 96 to 1152         0.3x to 0.95x    1.1x to 2.6x     0.4x to 1.5x     1.15x to 2.1x
    SE-ResNet's, 256 and 2048          0.3x and 0.5x    1.2x and 1.1x    0.5x and 1.2x    1.3x and 0.9x
    3x3 to 32, 48, 64, 96 channels     1.0x to 1.3x     1.03x to 1.2x    1.1x to 1.3x     1.1x to 1.25x
    3x3 to 128 and 256                 0.8x             0.8x             1.1x to 1.2x     1.04x to 1.15x
    1x1 of stride 1 that widens        1.2x to 2.1x     1.3x to 1.9x     1.4x to 2.2x     1.4x to 1.8x
    1x1 that narrows                   0.7x to 0.9x     1.1x             1.0x             1.2x

In the columns of NCHW every call rearranges its maps. A network's first fused layer does that for all that
follow, so a 1x1 convolution, which gains on maps in channels_last memory, is fused; a lone squeeze-excite has
nobody behind it to share the cost with. 3x3 convolutions to 512 channels at 7 x 7 pixels gain (1.04x to 1.3x)
and are left alone: one bound on the width is a rule that can be remembered.
"""

from __future__ import annotations

from effnet_fast.fusion.calls import calls_of
from effnet_fast.fusion.spec import Block, SqueezeExcite

__all__ = ["slower"]

# The largest width below those that lose in a column above.
_WIDEST_DENSE = 96


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
