"""What the readers of all libraries share: convolutions, norms, activations and gates, by exact class.

A subclass may compute something else, so classes are compared by their full name; that also spares importing
libraries that are not installed.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from effnet_fast.fusion.spec import Conv, Padding, SqueezeExcite, Unsupported

__all__ = [
    "class_name",
    "is_identity",
    "read_activation",
    "read_conv",
    "read_gate",
    "read_squeeze_excite",
    "require_idle",
    "require_plain",
]

_TORCH = "torch.nn.modules"
_TIMM = "timm.layers"
_LUKEMELAS = "efficientnet_pytorch.utils"

# Full class name -> our name of the activation.
ACTIVATIONS: Mapping[str, str] = {
    f"{_TORCH}.activation.SiLU": "silu",
    f"{_TORCH}.activation.ReLU": "relu",
    f"{_TORCH}.activation.ReLU6": "relu6",
    f"{_TORCH}.activation.Hardswish": "hardswish",
    f"{_TORCH}.linear.Identity": "identity",
    f"{_TIMM}.activations.Swish": "silu",
    f"{_TIMM}.activations.HardSwish": "hardswish",
    f"{_TIMM}.activations_me.SwishMe": "silu",
    f"{_TIMM}.activations_me.HardSwishMe": "hardswish",
    f"{_LUKEMELAS}.Swish": "silu",
    f"{_LUKEMELAS}.MemoryEfficientSwish": "silu",
}
GATES: Mapping[str, str] = {
    f"{_TORCH}.activation.Sigmoid": "sigmoid",
    f"{_TORCH}.activation.Hardsigmoid": "hardsigmoid",
    f"{_TIMM}.activations.Sigmoid": "sigmoid",
    f"{_TIMM}.activations.HardSigmoid": "hardsigmoid",
    f"{_TIMM}.activations_me.HardSigmoidMe": "hardsigmoid",
}
# Batch norms whose evaluation is an affine map of each channel; timm's hold their activation as well. In
# evaluation, synchronised ones exchange nothing.
NORMS = (
    f"{_TORCH}.batchnorm.BatchNorm2d",
    f"{_TORCH}.batchnorm.SyncBatchNorm",
    "torchvision.ops.misc.FrozenBatchNorm2d",
)
NORMS_WITH_ACTIVATION = (
    f"{_TIMM}.norm_act.BatchNormAct2d",
    f"{_TIMM}.norm_act.FrozenBatchNormAct2d",
)
TIMM_SYNC_NORM = f"{_TIMM}.norm_act.SyncBatchNormAct"
# y = gamma * x for each channel.
SCALES = (f"{_TIMM}.layer_scale.LayerScale2d",)
# What the modules above are made of, by the names that our operators' weights are read from.
_TENSORS = ("weight", "bias", "running_mean", "running_var", "gamma")
# Nothing in evaluation, whatever they hold.
IDLE = (
    f"{_TORCH}.linear.Identity",
    f"{_TORCH}.dropout.Dropout",
    f"{_TORCH}.dropout.Dropout2d",
    f"{_TIMM}.drop.DropPath",
    "torchvision.ops.stochastic_depth.StochasticDepth",
    "effnet_fast.nn.drop_path.DropPath",
)
# Convolutions that pad as TensorFlow does, by the size of their input.
SAME_CONVOLUTIONS = (
    f"{_TIMM}.conv2d_same.Conv2dSame",
    f"{_LUKEMELAS}.Conv2dDynamicSamePadding",
    "effnet_fast.nn.conv.Conv2dSame",
)
STATIC_SAME_CONVOLUTION = f"{_LUKEMELAS}.Conv2dStaticSamePadding"


def original_class(module: nn.Module) -> type[nn.Module]:
    """The class of `module`, before it was fused if it is."""
    cls = type(module)
    return vars(cls).get("_original", cls)


def class_name(module: nn.Module) -> str:
    """The full name of the class of `module`, of its original class where it is fused."""
    cls = original_class(module)
    return f"{cls.__module__}.{cls.__qualname__}"


def is_identity(module: nn.Module) -> bool:
    """Whether `module` is an `nn.Identity`."""
    return class_name(module) == f"{_TORCH}.linear.Identity"


def require_plain(module: nn.Module) -> None:
    """Unsupported where `module` itself (not its children) may not compute what its class says.

    That is where its forward was replaced, on the object or in the class, or where a weight is no plain
    tensor of its own: pruning and weight norm make it from other parameters before each call, and tensors of
    other types (quantised, distributed) define their own arithmetic.

    Parametrisations (`torch.nn.utils.parametrize`) change the class itself, so that no reader knows it.
    """
    cls, own = original_class(module), vars(module)
    for name, value in own.items():
        if callable(value) and callable(getattr(cls, name, None)):
            raise Unsupported(f"{name} of a {cls.__name__} was replaced on the object")
        if name in _TENSORS and isinstance(value, Tensor):
            raise Unsupported(
                f"the {name} of a {cls.__name__} is made from other parameters before each call"
            )
    definer = next(base for base in cls.__mro__ if "forward" in vars(base))
    forward = vars(definer)["forward"]
    defined = (getattr(forward, "__module__", None), getattr(forward, "__qualname__", None))
    if definer is not nn.Module and defined != (definer.__module__, f"{definer.__qualname__}.forward"):
        raise Unsupported(f"forward of {cls.__name__} was replaced in the class")
    for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
        if type(tensor) not in (Tensor, nn.Parameter):
            raise Unsupported(f"a tensor of a {cls.__name__} is a {type(tensor).__name__}")


def require_idle(module: nn.Module, what: str) -> None:
    """Unsupported unless `module` does nothing in evaluation: dropout, drop path, identity."""
    if class_name(module) not in IDLE:
        raise Unsupported(f"{what} is a {type(module).__name__}")


def read_activation(module: nn.Module | None) -> str:
    """Our name of an activation; None is identity. Raises Unsupported for one that is not ours."""
    if module is None:
        return "identity"
    found = ACTIVATIONS.get(class_name(module))
    if found is None:
        raise Unsupported(f"no kernel for the activation {type(module).__name__}")
    require_plain(module)
    if found == "relu6" and (module.min_val, module.max_val) != (0, 6):
        raise Unsupported(f"a ReLU6 between {module.min_val} and {module.max_val}")
    return found


def read_gate(module: nn.Module) -> str:
    """Our name of a squeeze-excite's gate. Raises Unsupported for one that is not ours."""
    found = GATES.get(class_name(module))
    if found is None:
        raise Unsupported(f"no kernel for the gate {type(module).__name__}")
    require_plain(module)
    return found


def read_conv(
    conv: nn.Module,
    norm: nn.Module | None = None,
    activation: nn.Module | str | None = None,
    *,
    scale: nn.Module | None = None,
) -> Conv:
    """A convolution with what follows it.

    Args:
        conv: of torch, timm, efficientnet_pytorch or ours.
        norm: a batch norm, with its activation in it as timm's has, or None or an identity for none.
        activation: the module after the norm, or our name of it; None where the norm has it or there is none.
        scale: a layer scale after the norm.

    Raises: Unsupported for what our operators do not compute.
    """
    padding = _padding(conv)
    require_plain(conv)
    _check_geometry(conv)
    norm, inner = _norm(norm, conv.out_channels)
    if scale is not None:
        if class_name(scale) not in SCALES:
            raise Unsupported(f"a {type(scale).__name__} behind a convolution")
        require_plain(scale)
        if tuple(scale.gamma.shape) != (conv.out_channels,):
            raise Unsupported("a layer scale of another number of channels")
    outer = activation if isinstance(activation, str) else read_activation(activation)
    if "identity" not in (inner, outer):
        raise Unsupported("two activations behind one convolution")
    found = outer if inner == "identity" else inner
    if found != "identity" and scale is not None:
        raise Unsupported("a layer scale behind an activation")
    return Conv(conv, norm, found, padding, scale)


def read_squeeze_excite(
    reduce: nn.Module, expand: nn.Module, activation: nn.Module, gate: nn.Module | str
) -> SqueezeExcite:
    """A squeeze-excite of two 1x1 convolutions; `gate` is a module or, for a function, our name of it.

    Raises: Unsupported for other layers or functions.
    """
    for layer in (reduce, expand):
        padding = _padding(layer)
        require_plain(layer)
        _check_geometry(layer)
        if padding not in ("same", (0, 0, 0, 0)) or layer.kernel_size != (1, 1) or layer.groups != 1:
            raise Unsupported("a squeeze-excite whose layers are not 1x1 convolutions")
    if (reduce.in_channels, reduce.out_channels) != (expand.out_channels, expand.in_channels):
        raise Unsupported("a squeeze-excite that does not give back the channels that it takes")
    name = gate if isinstance(gate, str) else read_gate(gate)
    return SqueezeExcite(reduce, expand, read_activation(activation), name)


def _norm(norm: nn.Module | None, channels: int) -> tuple[nn.Module | None, str]:
    """The batch norm and the activation inside of it."""
    if norm is None or is_identity(norm):
        return None, "identity"
    name = class_name(norm)
    if name not in (*NORMS, *NORMS_WITH_ACTIVATION, TIMM_SYNC_NORM):
        raise Unsupported(f"{type(norm).__name__} is no batch norm that can be folded")
    require_plain(norm)
    if norm.running_mean is None or norm.running_var is None:
        raise Unsupported("a batch norm without running statistics")
    tensors = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    if any(tensor is not None and tuple(tensor.shape) != (channels,) for tensor in tensors):
        raise Unsupported("a batch norm of another number of channels")
    if name in NORMS:
        return norm, "identity"
    # timm's conversion to synchronised norms gives them these two only where the norm had them.
    missing = nn.Identity() if name == TIMM_SYNC_NORM else None
    drop, act = (getattr(norm, "drop", missing), getattr(norm, "act", missing))
    require_idle(drop, "what drops the output of a batch norm")
    return norm, read_activation(act)


def _padding(conv: nn.Module) -> Padding:
    name = class_name(conv)
    if name in (*SAME_CONVOLUTIONS, STATIC_SAME_CONVOLUTION):
        if tuple(conv.padding) != (0, 0):
            raise Unsupported(f"padding={conv.padding!r} on top of TensorFlow's")
        return "same" if name in SAME_CONVOLUTIONS else _static_padding(conv.static_padding)
    if name != f"{_TORCH}.conv.Conv2d":
        raise Unsupported(f"{type(conv).__name__} is no plain convolution")
    if isinstance(conv.padding, str):
        if conv.padding == "valid":
            return 0, 0, 0, 0
        half = conv.kernel_size[0] // 2  # PyTorch's own "same" is for stride 1 alone
        return half, half, half, half
    vertical, horizontal = conv.padding
    return vertical, horizontal, vertical, horizontal


def _static_padding(pad: nn.Module) -> Padding:
    """What efficientnet_pytorch pads with: a module, made for the image size the network was built for."""
    require_plain(pad)
    if is_identity(pad):
        return 0, 0, 0, 0
    if class_name(pad) != f"{_TORCH}.padding.ZeroPad2d" or pad.value != 0:
        raise Unsupported(f"a convolution padded by a {type(pad).__name__}")
    left, right, top, bottom = pad.padding
    if min(pad.padding) < 0:
        raise Unsupported("a convolution that crops its input")
    return top, left, bottom, right


def _check_geometry(conv: nn.Conv2d) -> None:
    height, width = conv.kernel_size
    if height != width or height % 2 == 0:
        raise Unsupported(f"a {height} x {width} kernel: ours are square and odd")
    if tuple(conv.dilation) != (1, 1):
        raise Unsupported("dilation")
    if conv.stride[0] != conv.stride[1]:
        raise Unsupported("strides that differ")
    if conv.padding_mode != "zeros":
        raise Unsupported(f"padding_mode={conv.padding_mode!r}")
    if conv.groups > 1 and not conv.groups == conv.in_channels == conv.out_channels:
        raise Unsupported(f"{conv.groups} groups of {conv.in_channels // conv.groups} channels")
    expected = (conv.out_channels, conv.in_channels // conv.groups, height, width)
    if tuple(conv.weight.shape) != expected:
        # PyTorch computes with the weight's shape; the attributes may be stale after surgery.
        given = " x ".join(map(str, conv.weight.shape))
        raise Unsupported(f"a weight of {given} in a convolution of {' x '.join(map(str, expected))}")
