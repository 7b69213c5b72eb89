"""Weights in the form that a backend's kernels read."""

from __future__ import annotations

import torch
from torch import Tensor

from effnet_fast import backends, native

from . import containers
from .composition import pack_parts
from .forms import weights_label
from .schemas import ACTIVATIONS, NAMESPACE, operator, overload
from .validation import check_weights


def pack(
    op: str,
    *weights: Tensor | None,
    activation: str = "identity",
    expand_activation: str | None = None,
    backend: str | backends.Backend = "auto",
    isa: str = "auto",
) -> Tensor:
    """Pack the weights of operator `op` into one opaque tensor for its packed forms.

    Args:
        op: an operator's name, for example ``"depthwise_conv"``.
        weights: its weight tensors in schema order, in the framework's shapes; None for an absent one,
            trailing ones may be left out. Gradients are not tracked.
        activation: the activation that the packed call will be given (a kernel may fold its constants).
        expand_activation: the same for the expansion of ``expand_depthwise*``; default: `activation`.
        backend: the backend that will run the call; see :func:`effnet_fast.backends.resolve`.
        isa: for the CPU backend, ``"auto"`` or one of ``effnet_fast.native.cpu_isas()``: the packed call runs
            the instruction set that it was packed for.

    Returns:
        A one-dimensional uint8 tensor on the weights' device. It is specific to backend, instruction set and
        storage dtype, so it belongs in no state_dict: store the weights, and pack after loading.

    Raises:
        ValueError, TypeError: as the operator itself would for these weights. RuntimeError: `backend` cannot
            serve.
    """
    row = operator(op)
    if len(weights) > len(row.weights):
        raise ValueError(
            f"{NAMESPACE}.pack({op!r}): got {len(weights)} weights, expected at most {len(row.weights)}: "
            f"{', '.join(row.weights)}"
        )
    given = [None if w is None else w.detach() if isinstance(w, Tensor) else w for w in weights]
    given += [None] * (len(row.weights) - len(given))
    expand_activation = activation if expand_activation is None else expand_activation
    for name, value in (("activation", activation), ("expand_activation", expand_activation)):
        if value not in ACTIVATIONS:
            raise ValueError(
                f"{NAMESPACE}.pack({op!r}): {name} = {value!r}, expected one of {', '.join(ACTIVATIONS)}"
            )
    storage, device = check_weights(row, given)
    chosen = backends.resolve(op, backend, device_type=device.type, dtype=storage)
    if isa != "auto" and (chosen is not backends.Backend.CPU or isa not in native.cpu_isas()):
        allowed = ("auto", *native.cpu_isas()) if chosen is backends.Backend.CPU else ("auto",)
        raise ValueError(
            f"{NAMESPACE}.pack({op!r}): isa = {isa!r}, backend {chosen} accepts {', '.join(allowed)}"
        )
    folded = {"expand_activation": expand_activation, "activation": activation}
    activations = [folded[p.name] for p in row.parameters if p.name in folded]
    if chosen is backends.Backend.REFERENCE:
        return containers.write(containers.WEIGHTS, weights_label(row, activations), given)
    if backends.has_kernel(row.pack_name, chosen):
        return overload(row.pack_name + backends.twin(chosen))(*given, *activations, isa)

    def pack_part(part: str, *part_weights: Tensor | None, activation: str) -> Tensor:
        return pack(part, *part_weights, activation=activation, backend=chosen, isa=isa)

    with torch.no_grad():
        return pack_parts(row.packed_as or op, given, activation, expand_activation, pack_part)
