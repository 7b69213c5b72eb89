"""JAX: the network compiled by XLA, from the graph that torch.export gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.peers.eager_folded import fold_batch_norms
from benchmarks.peers.onnx_export import missing_packages
from benchmarks.peers.peer import Peer, PeerUnavailable, Prepared
from effnet_fast.measure.environment import usable_cores


def operators(jax: Any) -> dict[str, Callable[..., Any]]:
    """Name of an ATen operator -> the same in JAX, on maps [N, H, W, C] and weights [h, w, in / groups, out].

    Convolutions and products are of HIGHEST precision, or XLA would compute float32 in TF32 on a GPU.
    """
    lax, jnp = jax.lax, jax.numpy
    highest = lax.Precision.HIGHEST

    def conv2d(x, weight, bias=None, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):
        y = lax.conv_general_dilated(
            x,
            weight,
            window_strides=tuple(stride),
            padding=[(pad, pad) for pad in padding],
            rhs_dilation=tuple(dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
            precision=highest,
        )
        return y if bias is None else y + bias

    def pad(x, amounts, mode="constant", value=None):
        left, right, top, bottom = amounts
        around = [(0, 0), (top, bottom), (left, right), (0, 0)]
        return jnp.pad(x, around, constant_values=value or 0)

    def mean(x, dims, keepdim=False):
        if sorted(dim % 4 for dim in dims) != [2, 3]:
            raise PeerUnavailable(f"a mean over {dims} has no translation to JAX here")
        return jnp.mean(x, axis=(1, 2), keepdims=keepdim)

    return {
        "conv2d": conv2d,
        "pad": pad,
        "mean": mean,
        "silu": jax.nn.silu,
        "sigmoid": jax.nn.sigmoid,
        "hardtanh": lambda x, low=-1.0, high=1.0: jnp.clip(x, low, high),
        "mul": lambda x, y: x * y,
        "add": lambda x, y: x + y,
        "dropout": lambda x, p, train: x,
        "linear": lambda x, weight, bias: jnp.matmul(x, weight.T, precision=highest) + bias,
    }


def translate(
    model: nn.Module, images: torch.Tensor, jax: Any
) -> tuple[Callable[[dict, Any], Any], dict[str, torch.Tensor]]:
    """`model` as a function of (weights, images [N, H, W, 3]) in JAX, and its weights as that wants them.

    Raises: PeerUnavailable for an operator that has no translation here.
    """
    exported = torch.export.export(model, (images,))
    signature, known = exported.graph_signature, operators(jax)
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    weights = {node: exported.state_dict[name] for node, name in names.items()}
    weights = {
        node: value.permute(2, 3, 1, 0).contiguous() if value.dim() == 4 else value
        for node, value in weights.items()
    }
    steps = []
    for node in exported.graph.nodes:
        if node.op == "call_function":
            # "aten.silu_.default": in place or not is one to JAX.
            name = str(node.target).split(".")[1].rstrip("_")
            if name not in known:
                raise PeerUnavailable(f"{node.target} has no translation to JAX here")
            steps.append((node.name, known[name], node.args, node.kwargs))
    (given,), (result,) = signature.user_inputs, signature.user_outputs

    def network(weights: dict, images: Any) -> Any:
        values = {**weights, given: images}
        for name, function, arguments, options in steps:
            taken = [values[value.name] if isinstance(value, torch.fx.Node) else value for value in arguments]
            values[name] = function(*taken, **options)
        return values[result]

    return network, weights


def prepare(model: nn.Module, images: torch.Tensor, dtype: torch.dtype) -> Prepared:
    """Raises PeerUnavailable where XLA's threads are not those of the other peers: on a CPU it takes every
    core that it may use.
    """
    import jax

    on_cpu = images.device.type == "cpu"
    if on_cpu and torch.get_num_threads() != usable_cores():
        raise PeerUnavailable(
            f"XLA takes all {usable_cores()} cores, the other peers {torch.get_num_threads()} threads"
        )
    fold_batch_norms(model)
    network, weights = translate(model.to(dtype), images.to(dtype), jax)

    def moved(value: torch.Tensor) -> Any:
        # By way of float32, which NumPy has and which holds the 16-bit types exactly.
        array = value.detach().float().cpu().numpy()
        return jax.numpy.asarray(array, dtype=str(dtype).removeprefix("torch."))

    weights = {name: moved(value) for name, value in weights.items()}
    given = moved(images.to(dtype).permute(0, 2, 3, 1).contiguous())
    compiled = jax.jit(network).lower(weights, given).compile()

    def call() -> torch.Tensor:
        logits = compiled(weights, given)
        # On a GPU the exchange makes PyTorch's stream wait for XLA's, and the host goes on.
        return torch.from_dlpack(logits.block_until_ready() if on_cpu else logits)

    platform = jax.devices()[0].platform
    return Prepared(call=call, own_bytes=None, details={"jax": jax.__version__, "platform": platform})


PEER = Peer(
    "jax",
    "JAX",
    "runtime",
    prepare,
    {"layout": "NHWC", "mode": "jax.jit, XLA", "precision": "highest", "batch_norm": "folded"},
    # Or XLA takes three quarters of a GPU's memory when it starts.
    environment={"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
    missing=missing_packages("jax", "jaxlib", hint="pip install jax, with cuda12 or cuda13 on a GPU"),
    slow_start=True,
)
