"""`effnet_fast.fusion_report`: what of a model is fused, what is not and why, and the bytes that it saves."""

from __future__ import annotations

import copy
import io
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from effnet_fast import backends
from effnet_fast.backends import Backend
from effnet_fast.fusion.calls import calls_of
from effnet_fast.fusion.fuse import Found, find, unfuse
from effnet_fast.fusion.module import state_of
from effnet_fast.fusion.network import network_of
from effnet_fast.fusion.parts import original_class
from effnet_fast.fusion.program import runs_native
from effnet_fast.fusion.traffic import eager_values, our_values
from effnet_fast.inference.report import format_bytes

__all__ = ["CAN_BE_FUSED", "FUSED", "LEFT_ALONE", "FusionReport", "FusionRow", "fusion_report"]

FUSED, CAN_BE_FUSED, LEFT_ALONE = "fused", "can be fused", "left alone"

_WIDTH = 140
_DEFAULT_SIZE = (224, 224)
# The residual sum where no operator of ours does it.
_ADD = "add"


@dataclass(frozen=True)
class FusionRow:
    """A block, or another part of the model that has convolutions.

    Attributes:
        path: as in `model.named_modules()`.
        name: of its original class.
        status: "fused", "can be fused" or "left alone".
        operators: of `effnet_fast.ops`, in order, "scale" (a product with gates) and "add" (a residual sum);
            none where it is left alone.
        reason: why it is left alone, or why its own modules run for all that it is fused.
        bytes_before: what its own modules read and write for one image, weights aside; None where that is not
            known.
        bytes_after: the same of the operators.
    """

    path: str
    name: str
    status: str
    operators: tuple[str, ...] = ()
    reason: str = ""
    bytes_before: int | None = None
    bytes_after: int | None = None


@dataclass(frozen=True)
class FusionReport:
    """What `fusion_report` found; `str()` of it is a table.

    Attributes:
        rows: in the order of `model.named_modules()`. Every convolution of the model belongs to one.
        image_size: (height, width) that the bytes are for; None where they are not known.
        dtype: of the maps.
        note: why no bytes are known; "" where they are.
    """

    rows: tuple[FusionRow, ...]
    image_size: tuple[int, int] | None
    dtype: torch.dtype
    note: str = ""

    @property
    def fused(self) -> tuple[FusionRow, ...]:
        return self._of(FUSED)

    @property
    def can_be_fused(self) -> tuple[FusionRow, ...]:
        return self._of(CAN_BE_FUSED)

    @property
    def left_alone(self) -> tuple[FusionRow, ...]:
        return self._of(LEFT_ALONE)

    @property
    def bytes_before(self) -> int | None:
        """Of all rows of which `bytes_after` is known, as eager PyTorch computes them; None without any."""
        return sum(row.bytes_before for row in self._counted) if self._counted else None

    @property
    def bytes_after(self) -> int | None:
        """Of the same rows, as our operators compute them."""
        return sum(row.bytes_after for row in self._counted) if self._counted else None

    @property
    def _counted(self) -> tuple[FusionRow, ...]:
        return tuple(row for row in self.rows if row.bytes_after is not None)

    def _of(self, status: str) -> tuple[FusionRow, ...]:
        return tuple(row for row in self.rows if row.status == status)

    def __str__(self) -> str:
        # Only who prints a report pays for the import.
        from rich import box
        from rich.console import Console
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column("module", no_wrap=True)
        table.add_column("class", no_wrap=True)
        table.add_column("status", no_wrap=True)
        table.add_column("operators")
        if self.image_size is not None:
            for heading in ("bytes\nbefore", "bytes\nafter"):
                table.add_column(heading, justify="right", no_wrap=True)
        if any(row.reason for row in self.rows):
            table.add_column("reason")
        for row in self.rows:
            sizes = [row.bytes_before, row.bytes_after] if self.image_size is not None else []
            table.add_row(
                row.path or "(model)",
                row.name,
                row.status,
                " > ".join(row.operators),
                *("-" if size is None else format_bytes(size) for size in sizes),
                *([row.reason] if any(row.reason for row in self.rows) else []),
            )
        console = Console(
            file=io.StringIO(), width=_WIDTH, color_system=None, force_terminal=False, markup=False,
            emoji=False,
        )  # fmt: skip
        console.print(table)
        rows = [line.rstrip() for line in console.file.getvalue().splitlines()]
        return "\n".join([self._title(), *rows, *self._notes()])

    def _title(self) -> str:
        counts = {FUSED: self.fused, CAN_BE_FUSED: self.can_be_fused, LEFT_ALONE: self.left_alone}
        return ", ".join(f"{len(rows)} {status}" for status, rows in counts.items())

    def _notes(self) -> list[str]:
        before, after = self.bytes_before, self.bytes_after
        if self.image_size is None or before is None:
            return [f"no bytes: {self.note or 'no block takes part in a run of the model'}"]
        height, width = self.image_size
        dtype = str(self.dtype).removeprefix("torch.")
        ratio = f", {before / after:.1f} times less" if after else ""
        return [
            f"bytes: read and written for one image of {height} x {width} in {dtype}, weights aside; in all, "
            "without what is left alone:",
            f"{format_bytes(before)} as separate PyTorch operators, {format_bytes(after)} fused{ratio}",
        ]


def fusion_report(model: nn.Module, *, image_size: int | tuple[int, int] | None = None) -> FusionReport:
    """What of `model` is fused, what `fuse` would fuse, and what is left alone and why; ``print`` it.

    Every convolution of the model is in exactly one row. The bytes are counted from shapes, not measured:
    each map that an operator reads or writes, for one image, with each PyTorch operator by itself and with
    the operators that `fuse` chooses on the device that the weights are on. Input sizes of the blocks come
    from one run of a copy without values (on the meta device, hooks left out); where the model does not run
    so, say because it takes a list of images, the report has no bytes and says why.

    Args:
        model: fused or not; it is not changed, and nothing is computed.
        image_size: pixels, or (height, width). None: what the model says of itself (timm's `pretrained_cfg`,
            `preprocessing` of `effnet_fast`, efficientnet_pytorch's image size), else 224.

    Raises: TypeError: `model` is not a module, or `image_size` neither a number nor two. ValueError: an
        `image_size` below 1.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    size = _declared_size(model) if image_size is None else _checked_size(image_size)
    order = {name: index for index, (name, _) in enumerate(model.named_modules())}
    items = sorted(find(model), key=lambda item: order[item.path])
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    shapes, note = _input_sizes(model, items, size, dtype)
    backend_of = _backends(model)
    rows = tuple(_row(item, shapes.get(item.path, []), backend_of) for item in items)
    return FusionReport(rows, None if note else size, dtype, note)


def _row(
    item: Found, sizes: list[tuple[int, int]], backend_of: Mapping[nn.Module, str | Backend]
) -> FusionRow:
    name, block = original_class(item.module).__name__, item.block
    if block is None:
        return FusionRow(item.path, name, LEFT_ALONE, reason=item.reason)
    status = FUSED if item.fused else CAN_BE_FUSED
    calls = calls_of(block)
    operators = tuple(call.operator for call in calls)
    if block.residual and not calls[-1].residual:
        operators += (_ADD,)
    weight = next(block.tensors())
    device, backend = weight.device.type, backend_of.get(item.module, Backend.AUTO)
    before = after = None
    if sizes:
        before = weight.dtype.itemsize * sum(eager_values(block, *size) for size in sizes)
    reason = ""
    try:
        if runs_native(block, weight.dtype, device, backend):
            one_kernel = _kernels(weight.dtype, device, backend)
            if sizes:
                after = weight.dtype.itemsize * sum(our_values(block, *size, one_kernel) for size in sizes)
        else:
            reason, after = f"no kernels of ours on this {device}: its own modules run", before
    except RuntimeError as error:  # a backend that was asked for by name cannot serve here
        reason = str(error)
    return FusionRow(item.path, name, status, operators, reason, before, after)


def _kernels(dtype: torch.dtype, device: str, backend: str | Backend) -> Callable[[str], bool]:
    """Whether an operator is one kernel where it would run."""

    def is_one_kernel(operator: str) -> bool:
        chosen = backends.resolve(operator, backend, device_type=device, dtype=dtype)
        return chosen is not Backend.REFERENCE and backends.has_kernel(f"{operator}_into", chosen)

    return is_one_kernel


def _backends(model: nn.Module) -> dict[nn.Module, str | Backend]:
    """The backend that each fused block, or the lead of each fused chain, was asked to run on."""
    found: dict[nn.Module, str | Backend] = {}
    for module in model.modules():
        state, network = state_of(module), network_of(module)
        if state is not None:
            found[module] = state.backend
        if network is not None:
            found |= {chain.modules[0]: network.backend for chain in network.chains}
    return found


def _input_sizes(
    model: nn.Module, items: list[Found], size: tuple[int, int], dtype: torch.dtype
) -> tuple[dict[str, list[tuple[int, int]]], str]:
    """{path: (height, width) of each input} of what can be fused; and why there is none, or ""."""
    paths = [item.path for item in items if item.block is not None]
    stem = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if not paths or stem is None:
        return {}, "there is nothing to fuse"
    found: dict[str, list[tuple[int, int]]] = {path: [] for path in paths}
    try:
        empty = _without_values(model)
        for path in paths:
            empty.get_submodule(path).register_forward_pre_hook(_recorder(found[path]))
        with torch.no_grad():
            empty(torch.empty((1, stem.in_channels, *size), dtype=dtype, device="meta"))
    except Exception as error:  # it takes something else than one image, or needs values on its way
        line = textwrap.shorten(next(iter(str(error).strip().splitlines()), ""), 80)
        return {}, f"the model does not run on one image without values ({type(error).__name__}: {line})"
    return found, ""


def _recorder(sizes: list[tuple[int, int]]) -> Callable[[nn.Module, tuple], None]:
    def record(module: nn.Module, args: tuple) -> None:
        if args and isinstance(args[0], Tensor) and args[0].dim() == 4:
            sizes.append(tuple(args[0].shape[2:]))

    return record


def _without_values(model: nn.Module) -> nn.Module:
    """A copy of `model` on the meta device, unfused, evaluating, without hooks; weights are never copied."""
    # What is in the memo of a deepcopy stands for the thing that it would copy.
    memo: dict[int, object] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        empty = torch.empty_like(tensor, device="meta")
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(empty, requires_grad=False) if is_parameter else empty
    empty = unfuse(copy.deepcopy(model, memo)).to("meta").eval()
    for module in empty.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return empty


def _declared_size(model: nn.Module) -> tuple[int, int]:
    """What the model says of itself, else 224 x 224."""
    for name in ("pretrained_cfg", "default_cfg"):
        config = getattr(model, name, None)
        shape = config.get("input_size") if isinstance(config, Mapping) else None
        if shape is not None and len(shape) == 3:
            return int(shape[1]), int(shape[2])
    size = getattr(getattr(model, "preprocessing", None), "size", None)
    if size is None:
        size = getattr(getattr(model, "_global_params", None), "image_size", None)
    if isinstance(size, int):
        return size, size
    return tuple(size) if isinstance(size, (tuple, list)) and len(size) == 2 else _DEFAULT_SIZE


def _checked_size(image_size: object) -> tuple[int, int]:
    sides = (image_size, image_size) if isinstance(image_size, int) else image_size
    valid = isinstance(sides, (tuple, list)) and len(sides) == 2
    if not valid or any(not isinstance(side, int) or isinstance(side, bool) for side in sides):
        raise TypeError(f"image_size must be an int or two, (height, width), got {image_size!r}")
    if min(sides) < 1:
        raise ValueError(f"image_size must be at least 1, got {image_size!r}")
    return tuple(sides)
