"""How far an engine may be from its model: twice the stock model's own error in that dtype, and slack."""

from __future__ import annotations

import copy

import torch

from effnet_fast.testing import Budget


def budget(model, x: torch.Tensor, dtype: torch.dtype) -> Budget:
    """In 16 bits without the allowance for long sums: both sides round to them once, from float32."""
    with torch.no_grad():
        stock = copy.deepcopy(model).to(dtype)(x.to(dtype)) if dtype != torch.float32 else model(x)
        exact = copy.deepcopy(model).double()(x.double())
    terms = model.config.head_channels if dtype == torch.float32 else 1
    return Budget(exact, stock.float(), terms=terms, dtype=dtype)
