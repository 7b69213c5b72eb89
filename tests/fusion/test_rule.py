"""What is slower fused stays as it is, by shape, and nothing else does."""

from __future__ import annotations

import pytest
import timm
from timm.layers import ConvNormAct
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import nn

import effnet_fast
from effnet_fast.fusion.parts import class_name
from effnet_fast.fusion.readers import READERS
from effnet_fast.fusion.rule import slower
from effnet_fast.nn import ConvBlock, FusedMBConv, MBConv


def reason(module: nn.Module, device_type: str = "cpu") -> str:
    return slower(READERS[class_name(module)](module), device_type)


def conv(channels: int, out: int, kernel: int, **options) -> nn.Module:
    return ConvNormAct(channels, out, kernel, **options).eval()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_squeeze_excite_by_itself(device):
    assert "a squeeze-excite by itself" in reason(SqueezeExcite(16, act_layer=nn.SiLU), device)
    assert reason(MBConv(16, 16, expanded_channels=32, squeeze_channels=4).eval(), device) == ""


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (conv(128, 128, 3), "3 x 3 convolution to 128 channels"),
        (conv(64, 128, 5, stride=2), "5 x 5 convolution to 128 channels"),
        (ConvBlock(104, 104, kernel_size=3), "3 x 3 convolution to 104 channels"),  # with its skip
        (conv(96, 96, 3), ""),
        (conv(128, 512, 1), ""),
        (conv(128, 128, 3, groups=128), ""),
        (conv(3, 128, 7, stride=2), ""),  # a stem has a kernel of its own
        (FusedMBConv(64, 64, expanded_channels=256), ""),
    ],
)
def test_a_wide_dense_convolution_by_itself(module, expected):
    found = reason(module.eval())
    assert bool(found) == bool(expected)
    assert expected in found
    assert reason(module, "cuda") == ""  # nothing was measured there


def test_they_are_named_and_their_models_come_back():
    model = timm.create_model("seresnet18").eval()
    with pytest.warns(UserWarning, match="nothing to fuse"):
        assert effnet_fast.fuse(model) is model
    report = effnet_fast.fusion_report(model)
    reasons = {row.reason for row in report.rows if row.name == "SEModule"}
    assert len(reasons) == 1
    assert reasons.pop().startswith("slower than PyTorch's own here")
    assert not report.can_be_fused
    pair = nn.Sequential(conv(128, 128, 3), conv(128, 8, 1))
    fused = effnet_fast.fuse(pair)
    assert [row.status for row in effnet_fast.fusion_report(fused).rows] == ["left alone", "fused"]
    with pytest.raises(ValueError, match="0: slower than PyTorch's own here"):
        effnet_fast.fuse(pair, strict=True)
