"""The gate of squeeze-excite, from pooled sums."""

from __future__ import annotations

from torch import Tensor

from effnet_fast.backends import Backend

from .dispatch import call


def squeeze_excite_gate(
    sums: Tensor,
    count: int,
    w1: Tensor,
    b1: Tensor | None,
    w2: Tensor,
    b2: Tensor | None = None,
    activation: str = "silu",
    gate: str = "sigmoid",
    *,
    backend: str | Backend = "auto",
    out: Tensor | None = None,
) -> Tensor:
    """``gate(w2 @ activation(w1 @ (sum over t of sums[:, t]) / count + b1) + b2)`` for each image.

    Squeeze-and-excitation (arXiv:1709.01507, section 3) behind :func:`depthwise_conv_pool`. In plain
    PyTorch::

        mean = sums.sum(1) / count                          # count = OH * OW
        gates = torch.sigmoid(F.linear(F.silu(F.linear(mean, w1, b1)), w2, b2))

    Args:
        sums: [N, T, C] float32 (float64 on the reference), any number T of partial sums.
        count: values behind each total.
        w1, b1: [S, C, 1, 1] or [S, C], and [S]; w2, b2: [C, S, 1, 1] or [C, S], and [C]; dtype of `sums`.
        activation: identity, relu, relu6, silu or hardswish. gate: sigmoid or hardsigmoid.
        backend: see :func:`effnet_fast.backends.resolve`.
        out: [N, C] contiguous, to write into.

    Returns:
        [N, C], dtype of `sums`.

    Raises: as :func:`depthwise_conv`.
    """
    return call("squeeze_excite_gate", [sums, count, w1, b1, w2, b2, activation, gate], backend, out)
