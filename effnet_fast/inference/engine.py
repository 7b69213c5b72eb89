"""The inference engine: a model folded, packed, planned and bound to memory once; images in, logits out."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from effnet_fast import backends as backend_choice
from effnet_fast.backends import Backend
from effnet_fast.inference.folding import fold
from effnet_fast.inference.inputs import (
    ImageSpec,
    check_positive,
    resolve_dtype,
    resolve_image_size,
    resolve_normalisation,
)
from effnet_fast.inference.layers import Layer, network_layers
from effnet_fast.inference.limits import CpuLimits
from effnet_fast.inference.packing import pack_network
from effnet_fast.inference.planner import Plan, plan_network
from effnet_fast.inference.program import Program, allocate_arena, bind
from effnet_fast.inference.report import MemoryReport

__all__ = ["InferenceEngine"]

_logger = logging.getLogger("effnet_fast")
_logged: set[tuple[str, str]] = set()

# Programs kept: the full batch, its rest, and a few sizes of irregular callers. One is about 0.3 MB.
_PROGRAMS = 8


class InferenceEngine:
    """`engine(images)` is `model(images)`, faster: kernels fused, batch norms folded, memory planned.

    ::

        engine = InferenceEngine(model.eval(), batch_size=16)
        logits = engine(images)

    The model is read once and neither changed nor kept: later changes of its weights do not reach the engine.

    Args:
        model: an `EfficientNet` in evaluation mode.
        batch_size: images processed together, at least 1; sizes the memory. A call takes any number.
        image_size: a side or (height, width), fixed for the engine. None: `model.preprocessing.size`.
        dtype: float32, float16 or bfloat16 of weights and activations; sums, biases, squeeze-excite and
            classifier are float32 in any case. None: float16 on CUDA, float32 on a CPU.
        device: where it runs. None: the model's.
        backend: "auto", "cpu" or "reference"; see `effnet_fast.backends.resolve`.
        input: "float" for images that are normalised already, "uint8" for pixels 0..255, which the first
            kernel normalises.
        layout: "NCHW" or "NHWC", the order of the images' dimensions; any strides are accepted.
        mean, std: for "uint8", one number a channel in units of [0, 1]. None: `model.preprocessing`'s.
        cuda_graph: "auto", True or False. No backend of this version captures graphs: True is refused.

    Raises:
        ValueError: a model in training mode, a size or an option outside its range. TypeError: a dtype or a
            type that is not supported, a module of the model (named by its path) that is not understood.
            RuntimeError: a backend asked for by name that cannot serve.

    Calls from several threads take turns. On the CPU backend an image's logits are the same to the bit
    however many images share its call.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        batch_size: int,
        image_size: int | tuple[int, int] | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        backend: str | Backend = "auto",
        input: str = "float",
        layout: str = "NCHW",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        cuda_graph: bool | str = "auto",
    ):
        network = fold(model)
        if network.stem.weight.is_meta:
            raise ValueError("model must have its weights in memory, got tensors on the meta device")
        device = network.stem.weight.device if device is None else torch.device(device)
        dtype = resolve_dtype(dtype, device)
        _check_cuda_graph(cuda_graph)
        size = resolve_image_size(image_size, model)
        self._batch = check_positive("batch_size", batch_size)
        self._spec = ImageSpec(network.in_channels, *size, input, layout, dtype, device)
        self._classes = network.num_classes
        self._normalisation = resolve_normalisation(input, mean, std, model, network.in_channels, device)

        # A composition writes the expanded tensor all the same, so only a kernel is worth it.
        chosen = backend_choice.resolve("expand_depthwise", backend, device_type=device.type, dtype=dtype)
        fuse_expansion = chosen is Backend.CPU and backend_choice.has_kernel("expand_depthwise_into", chosen)
        layers = network_layers(network, size, fuse_expansion=fuse_expansion)
        self._backends = _resolve_backends(layers, backend, dtype, device)
        limits = CpuLimits.detect()
        self._plan = plan_network(
            layers,
            batch=batch_size,
            dtype=dtype,
            image_dtype=self._spec.image_dtype,
            threads=limits.threads if device.type == "cpu" else 1,
            # The rule is about the caches of a CPU; elsewhere a whole batch fills the device better.
            budget_bytes=limits.budget_bytes if device.type == "cpu" else None,
        )
        self._weights = pack_network(network, self._backends, dtype, device, fuse_expansion=fuse_expansion)
        self._arena = allocate_arena(self._plan, device)
        self._programs: OrderedDict[int, Program] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def batch_size(self) -> int:
        """Images processed together."""
        return self._batch

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the images."""
        return self._spec.height, self._spec.width

    @property
    def dtype(self) -> torch.dtype:
        """Storage dtype of weights and activations."""
        return self._spec.dtype

    @property
    def device(self) -> torch.device:
        """Where the engine runs."""
        return self._spec.device

    @property
    def backends(self) -> dict[str, str]:
        """{operator: backend that runs it}."""
        return {operator: str(backend) for operator, backend in self._backends.items()}

    @property
    def plan(self) -> Plan:
        """Steps, segments and buffers; `print(engine.plan)` is a table."""
        return self._plan

    @property
    def memory(self) -> MemoryReport:
        """Bytes held by the engine."""
        return MemoryReport(
            arena_bytes=self._plan.arena_bytes,
            weight_bytes=sum(packed.numel() for packed in self._weights.values()),
            peak_bytes=self._plan.peak_bytes,
        )

    def warmup(self) -> None:
        """Run a full batch of zeros: binds the full batch's program and touches every page of the arena."""
        spec = self._spec
        sizes = {"N": self._batch, "C": spec.channels, "H": spec.height, "W": spec.width}
        shape = [sizes[letter] for letter in spec.layout]
        self(torch.zeros(shape, dtype=spec.image_dtype, device=spec.device))

    def __call__(self, images: Tensor) -> Tensor:
        """Logits, float32 [N, num_classes] on the engine's device, of N >= 0 images.

        Args:
            images: [N, C, H, W] (or [N, H, W, C]), any strides, any device; uint8, or float32, float16 or
                bfloat16 whatever the engine's dtype.

        Raises: TypeError for another type or dtype, ValueError for another shape.

        A NaN in an image makes that image's logits NaN and no other's.
        """
        images = self._spec.prepare(images)
        total = images.shape[0]
        # Outside of inference mode: the result is an ordinary tensor, which the caller may use with autograd.
        logits = torch.empty((total, self._classes), dtype=torch.float32, device=self._spec.device)
        with self._lock, torch.inference_mode():
            for begin in range(0, total, self._batch):
                end = min(begin + self._batch, total)
                logits[begin:end].copy_(self._program(end - begin).run(images[begin:end]))
        return logits

    def __repr__(self) -> str:
        spec = self._spec
        names = ", ".join(sorted(set(self.backends.values())))
        return (
            f"InferenceEngine(batch_size={self._batch}, image_size={self.image_size}, dtype={spec.dtype}, "
            f"device={str(spec.device)!r}, backend={names!r}, input={spec.kind!r}, layout={spec.layout!r})"
        )

    def _program(self, images: int) -> Program:
        program = self._programs.get(images)
        if program is None:
            program = bind(
                self._plan, images, self._arena, self._weights, self._backends, self._normalisation
            )
            self._programs[images] = program
            if len(self._programs) > _PROGRAMS:
                self._programs.popitem(last=False)
        else:
            self._programs.move_to_end(images)
        return program


def _check_cuda_graph(cuda_graph: bool | str) -> None:
    if cuda_graph is True:
        raise RuntimeError(
            'cuda_graph=True needs a backend that captures CUDA graphs, and there is none: use "auto"'
        )
    if cuda_graph is not False and cuda_graph != "auto":
        raise ValueError(f'cuda_graph must be "auto", True or False, got {cuda_graph!r}')


def _resolve_backends(
    layers: Sequence[Layer], backend: str | Backend, dtype: torch.dtype, device: torch.device
) -> Mapping[str, Backend]:
    """{operator: backend} of every operator in `layers`; logs once where "auto" has only the reference."""
    resolved = {
        operator: backend_choice.resolve(operator, backend, device_type=device.type, dtype=dtype)
        for operator in dict.fromkeys(layer.operator for layer in layers)
    }
    floor = sorted(operator for operator, chosen in resolved.items() if chosen is Backend.REFERENCE)
    if floor and backend_choice.parse_backend(backend) is Backend.AUTO:
        key = (device.type, ",".join(floor))
        if key not in _logged:
            _logged.add(key)
            _logger.warning(
                "engine on %s: the plain PyTorch reference runs %s", device.type, ", ".join(floor)
            )
    return resolved
