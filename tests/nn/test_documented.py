"""The plain PyTorch in the docstrings of `effnet_fast.nn` is run, and computes what the module computes."""

from __future__ import annotations

import ast
import inspect
import textwrap

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import effnet_fast.nn as ours
from tests.nn.test_blocks import randomise_norms

C, M, S, k = 8, 24, 3, 5  # `O` of the docstrings is C, so that there is a skip
# Class -> (its arguments, the names that its docstring uses).
MODULES = {
    ours.Conv2dSame: ((C, 6, k, 2), {"stride": 2, "groups": 1}),
    ours.ConvNormAct: ((C, C, k, 2), {"stride": 2}),
    ours.SqueezeExcite: ((C, S), {}),
    ours.DropPath: ((0.4,), {"rate": 0.4}),
    ours.DepthwiseSeparable: ((C, C), {"stride": 1, "kernel_size": k, "squeeze_channels": S}),
    ours.MBConv: ((C, C), {"stride": 1, "kernel_size": k, "squeeze_channels": S, "expanded_channels": M}),
    ours.FusedMBConv: ((C, C), {"stride": 1, "kernel_size": k, "expanded_channels": M}),
    ours.ConvBlock: ((C, C), {"stride": 1, "kernel_size": k}),
}


def documented(cls: type) -> list[ast.stmt]:
    """The statements under "In plain PyTorch" in the docstring of `cls`."""
    text = inspect.getdoc(cls)
    block = text[text.index("In plain") :].split("::\n\n", 1)[1]
    lines = []
    for line in block.splitlines():
        if line and not line.startswith(" "):
            break
        lines.append(line)
    return ast.parse(textwrap.dedent("\n".join(lines))).body


def test_every_module_says_what_it_is_in_plain_pytorch():
    public = {getattr(ours, name) for name in ours.__all__ if inspect.isclass(getattr(ours, name))}
    assert public == set(MODULES)


@pytest.mark.parametrize("cls", MODULES, ids=lambda cls: cls.__name__)
def test_the_docstring_computes_the_same(cls):
    given, names = MODULES[cls]
    keywords = {name: value for name, value in names.items() if name.endswith(("channels", "size"))}
    module = cls(*given, **keywords)
    randomise_norms(module)
    module.train(cls is ours.DropPath)
    space = {
        "nn": nn, "F": F, "torch": torch, "SqueezeExcite": ours.SqueezeExcite, "C": C, "M": M, "S": S, "O": C,
        "k": k, "x": torch.randn(4, C, 12, 13), **names, **dict(module.named_parameters()),
    }  # fmt: skip
    space.setdefault("bias", None)
    x = space["x"]
    torch.manual_seed(1)
    expected = module(x.clone())
    torch.manual_seed(1)
    for statement in documented(cls):
        exec(compile(ast.Module([statement], []), cls.__name__, "exec"), space)
        if isinstance(space.get("plain"), nn.Module):
            # The same layers in the same order, so the names go together one by one.
            state = zip(space["plain"].state_dict(), module.state_dict().values(), strict=True)
            space["plain"].load_state_dict(dict(state))
            space["plain"].eval()
    torch.testing.assert_close(space["y"], expected)
    assert not torch.equal(expected, x)
