"""The inference engine: a model folded, packed, planned and bound to memory once; images in, logits out."""

from __future__ import annotations

import dataclasses
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor, nn

from effnet_fast.backends import Backend
from effnet_fast.inference.branches import resolve_branches
from effnet_fast.inference.capacity import explained, require
from effnet_fast.inference.cost import predict_plan
from effnet_fast.inference.draft import draft
from effnet_fast.inference.folding import FoldedNetwork, fold, folded_bytes, on_host
from effnet_fast.inference.gpu_cost import predict_plan_on_gpu
from effnet_fast.inference.implementations import resolve_backends, resolve_graphs
from effnet_fast.inference.inputs import (
    ImageSpec,
    check_positive,
    resolve_dtype,
    resolve_image_size,
    resolve_normalisation,
)
from effnet_fast.inference.module import FusedNetwork
from effnet_fast.inference.overlap import check_overlap
from effnet_fast.inference.packing import pack_network
from effnet_fast.inference.planner import Plan
from effnet_fast.inference.report import MemoryReport
from effnet_fast.inference.runner import Runner
from effnet_fast.inference.settings import EngineSettings
from effnet_fast.inference.storage import EngineFileError, load_network, save_network
from effnet_fast.inference.stream import Stream
from effnet_fast.inference.traced import number_of, run_engine
from effnet_fast.measure.ceilings import measure_ceilings
from effnet_fast.measure.gpu_rates import measured_rates
from effnet_fast.models.config import Preprocessing

__all__ = ["InferenceEngine"]

_living: weakref.WeakSet[InferenceEngine] = weakref.WeakSet()


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
        dtype: float32, float16 or bfloat16 of weights and activations; sums, biases, squeeze-excite, the
            classifier's products and logits are float32 in any case. None: float16 on CUDA, float32 on a CPU.
        device: where it runs. None: the model's.
        backend: "auto", "cuda", "triton", "cpu" or "reference"; see `effnet_fast.backends.resolve`.
        input: "float" for images that are normalised already, "uint8" for pixels 0..255, which the first
            kernel normalises.
        layout: "NCHW" or "NHWC", the order of the images' dimensions; any strides are accepted.
        mean, std: for "uint8", one number a channel in units of [0, 1]. None: `model.preprocessing`'s.
        cuda_graph: replay a batch as one CUDA graph. "auto": on CUDA, where kernels of ours run every layer.
            True is refused elsewhere.
        overlap: let two halves of a batch pass through blocks side by side, as two branches of a graph.
            "auto": where it is predicted to pay, in the graphs for which `warmup` measures it to be faster;
            never without a warm-up. True: every block, in every graph of 2 images or more, unmeasured;
            refused where there are no graphs. See docs/serving.md.
        keep_weights: keep the folded float32 weights in the host's memory, for `save` and copies. False frees
            them once they are packed: 21 MB for B0.

    Raises:
        ValueError: a model in training mode, a size or an option outside its range. TypeError: a dtype or a
            type that is not supported, a module of the model (named by its path) that is not understood.
            RuntimeError: a backend asked for by name that cannot serve. `EngineMemoryError`, a
            torch.OutOfMemoryError: says how much the engine takes and which batch would fit.

    Calls from several threads take turns, on CUDA also those from several streams. On the CPU backend an
    image's logits are the same to the bit however many images share its call. Inside `torch.compile` a call
    is one operator of the graph. A copy, by `copy` or pickle, is an engine made anew of the same weights,
    which must have been kept.
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
        overlap: bool | str = "auto",
        keep_weights: bool = True,
    ):
        network = fold(model)
        if network.stem.weight.is_meta:
            raise ValueError("model must have its weights in memory, got tensors on the meta device")
        device = network.stem.weight.device if device is None else torch.device(device)
        size = resolve_image_size(image_size, model)
        mean, std = resolve_normalisation(input, mean, std, model, network.in_channels)
        preprocessing = getattr(model, "preprocessing", None)
        settings = EngineSettings(
            batch_size=check_positive("batch_size", batch_size),
            image_size=size,
            dtype=resolve_dtype(dtype, device),
            input=input,
            layout=layout,
            mean=mean,
            std=std,
            preprocessing=preprocessing if isinstance(preprocessing, Preprocessing) else None,
        )
        self._build(on_host(network), settings, device, backend, cuda_graph, keep_weights, overlap)

    def _build(
        self,
        network: FoldedNetwork,
        settings: EngineSettings,
        device: torch.device,
        backend: str | Backend,
        cuda_graph: bool | str,
        keep_weights: bool = True,
        overlap: bool | str = "auto",
    ) -> None:
        """Plan, pack and allocate for `network`, whose tensors are on the CPU; `save` writes them if kept."""
        if device.type == "meta":
            raise ValueError("device must be one that computes, got meta")
        if device.type == "cuda" and device.index is None:
            # Which GPU is current may differ in another thread, or later.
            device = torch.device("cuda", torch.cuda.current_device())
        if not isinstance(keep_weights, bool):
            raise TypeError(f"keep_weights must be True or False, got {keep_weights!r}")
        self._network, self._settings = network if keep_weights else None, settings
        self._num_classes = network.num_classes
        self._asked = {"backend": backend, "cuda_graph": cuda_graph, "overlap": overlap}
        size, dtype = settings.image_size, settings.dtype
        self._spec = ImageSpec(network.in_channels, *size, settings.input, settings.layout, dtype, device)
        drafted = draft(
            network,
            size,
            batch=settings.batch_size,
            dtype=dtype,
            image_dtype=self._spec.image_dtype,
            device=device,
            backend=backend,
        )
        self._backends = resolve_backends(drafted.layers, backend, dtype, device)
        graphs = resolve_graphs(cuda_graph, device, self._backends)
        check_overlap(overlap, graphs, settings.batch_size)
        what = f"{size[0]} x {size[1]} images in {str(dtype).removeprefix('torch.')}"

        def fits(more: int) -> None:
            require(lambda images: drafted.needed_bytes(images) + more, settings.batch_size, device, what)

        fits(0)
        self._plan = drafted.plan(settings.batch_size)
        two_branches = None
        if graphs:
            self._plan, two_branches = resolve_branches(self._plan, overlap, device, fits)
        self._weights = pack_network(network, self._backends, dtype, device, forms=drafted.forms)
        self._normalisation = tuple(
            None if values is None else torch.tensor(values, dtype=torch.float32, device=device)
            for values in (settings.mean, settings.std)
        )
        self._runner = Runner(
            self._plan,
            self._weights,
            self._backends,
            self._normalisation,
            self._spec,
            graphs=graphs,
            two_branches=two_branches,
            forced=overlap is True,
        )
        self._plan = dataclasses.replace(self._plan, overlap=self._runner.overlap)
        self._lock = threading.Lock()
        self._number = number_of(self)
        _living.add(self)

    @property
    def batch_size(self) -> int:
        """Images processed together."""
        return self._settings.batch_size

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the images."""
        return self._spec.size

    @property
    def dtype(self) -> torch.dtype:
        """Storage dtype of weights and activations."""
        return self._spec.dtype

    @property
    def device(self) -> torch.device:
        """Where the engine runs."""
        return self._spec.device

    @property
    def num_classes(self) -> int:
        """Logits an image."""
        return self._num_classes

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How photographs become its images, as the model said; None where it did not."""
        return self._settings.preprocessing

    @property
    def backends(self) -> dict[str, str]:
        """{operator: backend that runs it}."""
        return {operator: str(backend) for operator, backend in self._backends.items()}

    @property
    def plan(self) -> Plan:
        """Steps, segments and buffers, what each step should take (predicted from measured ceilings) and,
        after `warmup`, what it took; `print(engine.plan)` is a table.
        """
        if self._plan.predictions is None and self.device.type in ("cpu", "cuda"):
            if self.device.type == "cuda":
                predictions = predict_plan_on_gpu(self._plan, measured_rates(self.device, self.dtype))
            else:
                predictions = predict_plan(self._plan, measure_ceilings(self.device, self.dtype))
            self._plan = dataclasses.replace(self._plan, predictions=predictions)
        return self._plan

    @property
    def memory(self) -> MemoryReport:
        """Bytes held by the engine."""
        plans = self._runner.plans
        return MemoryReport(
            arena_bytes=max(plan.arena_bytes for plan in plans),
            weight_bytes=sum(packed.numel() for packed in self._weights.values()),
            peak_bytes=max(plan.peak_bytes for plan in plans),
            scratch_bytes=self._plan.scratch_bytes,
            saved_bytes=0 if self._network is None else folded_bytes(self._network),
        )

    def check(self, images: Tensor) -> None:
        """Raise TypeError or ValueError, saying what is wrong, unless a call takes `images`."""
        self._spec.check(images)

    def warmup(self) -> None:
        """Do once what the first calls would: run a full batch, touching every page of the memory.

        With CUDA graphs also capture one for every bucket of images, and measure whether a rest of n images
        is faster padded to one or kernel by kernel, and where `overlap` allows two branches whether a graph
        is faster with them. Then time every step for `plan`. Half a second for B0 on a CPU; a few seconds
        with graphs.
        """
        with self._lock, torch.inference_mode(), self._explained():
            self._runner.warm_up()
            measured = self._runner.step_seconds()
        self._plan = dataclasses.replace(self.plan, overlap=self._runner.overlap, measured=measured)

    def __call__(self, images: Tensor) -> Tensor:
        """Logits, float32 [N, num_classes] on the engine's device, of N >= 0 images.

        Args:
            images: [N, C, H, W] (or [N, H, W, C]), any strides, any device; uint8, or float32, float16 or
                bfloat16 whatever the engine's dtype.

        Raises: TypeError for another type or dtype, ValueError for another shape.

        A NaN in an image makes that image's logits NaN and no other's. On CUDA the call returns before the
        logits are there, as PyTorch's own operators do; images in the host's memory have been copied by then.
        A caller may capture the call in a graph of its own after a first call with as many images; the engine
        must live as long as that graph, and its replays must not overlap other calls of the engine.
        """
        if torch.compiler.is_compiling():
            return run_engine(images.detach(), self._number, self.num_classes, self.device)
        self._spec.check(images)
        # Outside of inference mode: the result is an ordinary tensor, which the caller may use with autograd.
        logits = torch.empty((images.shape[0], self.num_classes), dtype=torch.float32, device=self.device)
        with self._lock, torch.inference_mode(), self._explained():
            self._runner.run(images, logits)
        return logits

    def stream(
        self,
        iterable: Iterable[Tensor],
        *,
        depth: int = 4,
        on_error: str | Callable[[int, Exception], object] = "raise",
    ) -> Stream:
        """The logits of every batch of `iterable`, in order: an iterator; see `Stream`.

        Reading, copying and computing overlap; at most `depth` batches are held at a time.
        """
        return Stream(self, iterable, depth=depth, on_error=on_error)

    def as_module(self) -> FusedNetwork:
        """The same computation as an `nn.Module` of dispatcher operators, for `torch.export`, AOTInductor and
        `torch.compile`; see `FusedNetwork`. It shares the engine's packed weights, not its planned memory.
        """
        return FusedNetwork(
            self._plan.layers, self._weights, self._backends, self._normalisation, spec=self._spec
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the folded float32 weights and the settings to one file in safetensors format.

        `InferenceEngine.load` makes an engine of it on any machine, without the model: weights are packed
        when they are loaded. An existing file is replaced only once the new one is complete.

        Raises: RuntimeError for an engine made with ``keep_weights=False``.
        """
        save_network(path, self._kept("saved"), self._settings.to_json())

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        batch_size: int | None = None,
        backend: str | Backend = "auto",
        cuda_graph: bool | str = "auto",
        overlap: bool | str = "auto",
        keep_weights: bool = True,
    ) -> InferenceEngine:
        """The engine that `save` wrote.

        Args:
            path: of the file.
            device: where it runs. None: the CPU.
            dtype, batch_size: None: as saved.
            backend, cuda_graph, overlap, keep_weights: as for a new engine.

        Raises: FileNotFoundError; `EngineFileError`, a ValueError, for a file that is damaged, of another
            format version or something else; what a new engine raises.
        """
        network, data = load_network(path)
        try:
            settings = EngineSettings.from_json(data)
            settings.check(network.in_channels)
        except (TypeError, ValueError) as error:
            raise EngineFileError(Path(path), f"has settings that are not understood: {error}") from error
        device = torch.device("cpu" if device is None else device)
        given = {
            "dtype": None if dtype is None else resolve_dtype(dtype, device),
            "batch_size": None if batch_size is None else check_positive("batch_size", batch_size),
        }
        settings = dataclasses.replace(
            settings, **{name: value for name, value in given.items() if value is not None}
        )
        engine = cls.__new__(cls)
        engine._build(network, settings, device, backend, cuda_graph, keep_weights, overlap)
        return engine

    def _kept(self, done: str) -> FoldedNetwork:
        """The folded weights; RuntimeError if they were not kept. `done` says what for, in the message."""
        if self._network is None:
            raise RuntimeError(
                f"an engine made with keep_weights=False cannot be {done}: its float32 weights were freed "
                "when they were packed. Make it with keep_weights=True, or another of the same model or file"
            )
        return self._network

    def _explained(self) -> AbstractContextManager[None]:
        return explained(self.batch_size, lambda: self.memory.total_bytes, self.device)

    def __getstate__(self) -> dict[str, object]:
        # What `_build` takes: no two engines share memory or a lock.
        return {
            "network": self._kept("copied or pickled"),
            "settings": self._settings,
            "device": self.device,
            **self._asked,
        }

    def __setstate__(self, state: dict[str, object]) -> None:
        self._build(**state)

    def __repr__(self) -> str:
        spec = self._spec
        names = ", ".join(sorted(set(self.backends.values())))
        return (
            f"InferenceEngine(batch_size={self.batch_size}, image_size={self.image_size}, "
            f"dtype={spec.dtype}, device={str(spec.device)!r}, backend={names!r}, input={spec.kind!r}, "
            f"layout={spec.layout!r})"
        )


def _unlock() -> None:
    """In a forked child: a thread that was in a call when the parent forked does not exist here."""
    for engine in _living:
        engine._lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_unlock)
