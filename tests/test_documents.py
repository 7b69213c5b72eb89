"""The README's first example and docs/drop-in.md run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import effnet_fast

ROOT = Path(effnet_fast.__file__).parent.parent


def python_blocks(name: str) -> list[str]:
    """The blocks of Python in a document, in order."""
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / name).read_text(encoding="utf-8"), re.M | re.S)


def test_the_first_example_of_the_readme(capsys):
    space: dict = {}
    exec(python_blocks("README.md")[0], space)
    model, fused = space["model"], space["fused"]
    assert type(model).__module__.startswith("timm.")
    assert isinstance(fused, type(model))
    assert "0 can be fused, 0 left alone" in capsys.readouterr().out
    x = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(fused(x), model(x), rtol=1e-3, atol=1e-5)
    assert space["logits"].shape == (8, 1000)


@pytest.mark.slow  # torch.compile
def test_every_example_of_drop_in(capsys):
    space: dict = {}
    for block in python_blocks("docs/drop-in.md"):
        exec(block, space)
    assert "blocks.1.0: MixedConv2d is no plain convolution" in capsys.readouterr().out
    model, x = space["model"], space["x"]
    assert not any("[fused]" in module._get_name() for module in space["half"].modules())
    with torch.inference_mode():
        expected = model(x)
        torch.testing.assert_close(space["logits"], expected, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(space["exported"], expected, rtol=1e-3, atol=1e-5)
        model.conv_stem.weight.data.mul_(1.01)
        torch.testing.assert_close(space["fused"](x), model(x), rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(space["compiled"](x), model(x), rtol=1e-3, atol=1e-5)
    assert space["tokens"].shape[2] == space["last"].shape[2] * space["last"].shape[3]
