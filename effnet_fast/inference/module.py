"""An engine's network as an `nn.Module`, for what compiles and exports modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from effnet_fast import ops
from effnet_fast.backends import Backend
from effnet_fast.inference.arguments import Held, Made, arguments, written
from effnet_fast.inference.exportable import exportable
from effnet_fast.inference.inputs import ImageSpec
from effnet_fast.inference.layers import IMAGE, Layer
from effnet_fast.ops import containers
from effnet_fast.ops.forms import weights_label
from effnet_fast.ops.schemas import operator

__all__ = ["FusedNetwork"]


class FusedNetwork(nn.Module):
    """`network(images)` is `engine(images)`; made by `InferenceEngine.as_module()`.

    The engine's operators without its memory plan, its lock and its graphs: for `torch.compile`,
    `torch.export` and AOTInductor, with any number of images. The weights are the engine's own packed ones,
    in non-persistent buffers. Packed for one backend, device, storage dtype and instruction set, they are in
    no state_dict, and the module can be neither moved nor converted. It computes no gradients.

    Args:
        layers: the operators, in order of execution.
        weights: {layer name: packed}.
        backends: {operator: resolved backend}.
        normalisation: mean and std for the stem, [C] float32 each, or None.
        spec: the images that it takes.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        weights: Mapping[str, Tensor],
        backends: Mapping[str, Backend],
        normalisation: tuple[Tensor | None, Tensor | None],
        *,
        spec: ImageSpec,
    ):
        super().__init__()
        self._layers, self._backends, self._spec = tuple(layers), dict(backends), spec
        for name, tensor in zip(("mean", "std"), normalisation, strict=True):
            self._hold(name, tensor)
        for index, layer in enumerate(self._layers):
            held = _weights(layer, weights[layer.name], self._backends[layer.operator])
            for argument, tensor in held.items():
                self._hold(_buffer_name(index, layer, argument), tensor)
        self._steps = _bind(self._layers, self._backends, spec.dtype)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits, float32 [N, num_classes], of N images.

        Args:
            images: [N, C, H, W] (or [N, H, W, C]), as the engine takes them.

        Raises: TypeError for another type or dtype, ValueError for another shape, RuntimeError for images
            that require grad while gradients are enabled.
        """
        self._spec.check(images)
        if images.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(
                "FusedNetwork computes no gradients, and images requires grad: give it images.detach() or "
                "call it under torch.no_grad(); to train, use the model that the engine was made from"
            )
        values = {IMAGE: self._spec.prepare(images)}
        for step in self._steps:
            given = [self._given(argument, values) for argument in step.arguments]
            outputs = step.call(*given)
            if isinstance(outputs, Tensor):
                outputs = (outputs,)
            for name, output in zip(step.writes, outputs, strict=True):
                values[name] = output
            for name in step.last_read:
                del values[name]
        return values[self._layers[-1].y.name].flatten(1)

    def _given(self, argument: Any, values: Mapping[str, Tensor]) -> Any:
        if isinstance(argument, Held):
            return getattr(self, argument.name)
        if isinstance(argument, Made):
            tensor = values[argument.value.name]
            return tensor if tensor.dim() == argument.rank else tensor[:, :, None, None]
        return argument

    def _hold(self, name: str, tensor: Tensor | None) -> None:
        if tensor is None:  # torch.export miscounts buffers that are None
            setattr(self, name, None)
            return
        # Compilers do not take a tensor that was made under inference mode.
        if tensor.is_inference():
            with torch.inference_mode(False):
                tensor = tensor.clone()
        self.register_buffer(name, tensor, persistent=False)

    def extra_repr(self) -> str:
        spec = self._spec
        names = ", ".join(sorted({str(backend) for backend in self._backends.values()}))
        return (
            f"image_size={(spec.height, spec.width)}, dtype={spec.dtype}, device={str(spec.device)!r}, "
            f"backend={names!r}, input={spec.kind!r}, layout={spec.layout!r}"
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FusedNetwork:
        """Refuse `.to`, `.half`, `.cuda` and the like where they would change anything."""
        probe = torch.empty(0, dtype=self._spec.dtype, device=self._spec.device)
        if fn(probe) is not probe:
            raise RuntimeError(
                "FusedNetwork can be neither moved nor converted: its weights are packed for "
                f"{self._spec.dtype} on {self._spec.device}. Make an InferenceEngine with another dtype or "
                "device, and call its as_module()"
            )
        # What leaves the storage dtype alone would still convert mean and std, which are always float32.
        return super()._apply(lambda t: t if t.is_floating_point() else fn(t), recurse)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        given = [key for key in state_dict if key.startswith(prefix)]
        if given:
            raise RuntimeError(
                f"FusedNetwork has no state_dict and loads none, got {', '.join(given[:3])}"
                f"{', ...' if len(given) > 3 else ''}: load the weights into the model, and make another "
                "InferenceEngine of it"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __getstate__(self) -> dict[str, Any]:
        # Operators are not pickled; they are found again by their names.
        return {key: value for key, value in self.__dict__.items() if key != "_steps"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._steps = _bind(self._layers, self._backends, self._spec.dtype)


class _Step(NamedTuple):
    """One call: `arguments` as in `effnet_fast.inference.arguments`, `Held` by the names of buffers.

    After it, the values `last_read` are not needed any more.
    """

    call: Callable[..., Tensor | tuple[Tensor, ...]]
    arguments: tuple[Any, ...]
    writes: tuple[str, ...]
    last_read: tuple[str, ...]


def _bind(layers: Sequence[Layer], backends: Mapping[str, Backend], dtype: torch.dtype) -> tuple[_Step, ...]:
    last_reader = {
        argument.value.name: i for i, layer in enumerate(layers) for argument in _made(layer, dtype)
    }
    steps = []
    for index, layer in enumerate(layers):
        backend = backends[layer.operator]
        given = arguments(layer, dtype, _variant(backend))
        steps.append(
            _Step(
                call=_call(layer.operator, backend),
                arguments=tuple(_argument(index, layer, argument, backend) for argument in given),
                writes=tuple(made.value.name for made in written(layer)),
                last_read=tuple(name for name, last in last_reader.items() if last == index),
            )
        )
    return tuple(steps)


def _made(layer: Layer, dtype: torch.dtype) -> list[Made]:
    return [argument for argument in arguments(layer, dtype) if isinstance(argument, Made)]


def _call(name: str, backend: Backend) -> Callable[..., Tensor | tuple[Tensor, ...]]:
    if operator(name).storage == "dtype" and backend is not Backend.REFERENCE:
        return exportable(name, backend)
    return ops.handle(name, _variant(backend), backend)


def _argument(index: int, layer: Layer, argument: Any, backend: Backend) -> Any:
    if isinstance(argument, Held):
        return Held(_buffer_name(index, layer, argument.name))
    if isinstance(argument, torch.dtype) and backend is not Backend.REFERENCE:
        return str(argument)  # as `exportable` takes it
    return argument


def _variant(backend: Backend) -> str:
    """The reference is plain PyTorch on plain weights, so that compilers see through it."""
    return "" if backend is Backend.REFERENCE else "packed"


def _weights(layer: Layer, packed: Tensor, backend: Backend) -> dict[str, Tensor | None]:
    """{argument: tensor} of what `_variant` holds for `layer`."""
    if backend is not Backend.REFERENCE:
        return {"packed": packed}
    row = operator(layer.operator)
    named = {"expand_activation": layer.expand_activation, "activation": layer.activation}
    activations = [named[p.name] for p in row.packed_parameters if p.name in named]
    found = containers.read(packed, containers.WEIGHTS, weights_label(row, activations))
    # Copies: these lie in the memory of one tensor, all of which would be saved with each of them.
    return {
        name: None if tensor is None else tensor.clone()
        for name, tensor in zip(row.weights, found, strict=True)
    }


def _buffer_name(index: int, layer: Layer, argument: str) -> str:
    if argument in ("mean", "std"):
        return argument
    return f"{argument}_{index}_{layer.name.replace('.', '_')}"
