"""The numerics contract as code, and what tests of operators need: inputs, layouts, and the backends at hand.

Used by the tests, by the mutants that test the tests, and by the benchmarks' correctness gate, so that there
is one definition of "right". See docs/numerics.md.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from effnet_fast import backends, native
from effnet_fast.ops import pack
from effnet_fast.ops.dispatch import call
from effnet_fast.ops.forms import REFERENCE
from effnet_fast.ops.geometry import conv_output_size, pool_tiles, single_dtype
from effnet_fast.ops.handles import handle
from effnet_fast.ops.schemas import OPERATORS, Operator, TensorSpec
from effnet_fast.ops.validation import check

LOW_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LAYOUTS = ("channels_last", "contiguous", "sliced", "offset")


@dataclass(frozen=True)
class Comparison:
    """Errors of one tensor beside what the contract allows."""

    max_error: float
    max_allowed: float
    l2_error: float
    l2_allowed: float
    finite: bool

    @property
    def passed(self) -> bool:
        return self.finite and self.max_error <= self.max_allowed and self.l2_error <= self.l2_allowed

    @property
    def used(self) -> float:
        """The larger share of an allowance that is used: up to 1 passes."""
        pairs = ((self.max_error, self.max_allowed), (self.l2_error, self.l2_allowed))
        return max(
            0.0 if error == 0 else error / allowed if allowed else math.inf for error, allowed in pairs
        )


@dataclass(frozen=True)
class Budget:
    """What a result may differ from the truth.

    ``max|y - r64| <= 2 max|rlow - r64| + slack max|r64|`` and ``relL2(y) <= 2 relL2(rlow) + slack``, with
    ``slack = eps max(1, sqrt(terms / 16))`` and eps of the result's dtype; every value finite. An empty
    result passes.

    Attributes:
        r64: the reference in float64 on upcast inputs.
        rlow: the same reference in the storage dtype; must be finite, else the inputs are no test.
        terms: summed per output value.
        dtype: of the result.
    """

    r64: Tensor
    rlow: Tensor
    terms: int
    dtype: torch.dtype

    def __post_init__(self) -> None:
        if self.r64.shape != self.rlow.shape:
            raise ValueError(f"r64 has shape {list(self.r64.shape)}, rlow has {list(self.rlow.shape)}")
        if not (self.r64.isfinite().all() and self.rlow.isfinite().all()):
            raise ValueError(
                "the reference is not finite on these inputs, so nothing can be compared with it"
            )

    def compare(self, y: Tensor) -> Comparison:
        """Measure `y`; ValueError when its shape is not the reference's."""
        if y.shape != self.r64.shape:
            raise ValueError(f"result has shape {list(y.shape)}, expected {list(self.r64.shape)}")
        if y.numel() == 0:
            return Comparison(0.0, 0.0, 0.0, 0.0, True)
        r64, low = self.r64.double(), self.rlow.double()
        y = y.to(device=r64.device, dtype=torch.float64)
        slack = torch.finfo(self.dtype).eps * max(1.0, math.sqrt(self.terms / 16))
        scale, norm = r64.abs().max().item(), r64.norm().item()
        return Comparison(
            max_error=(y - r64).abs().max().item(),
            max_allowed=2 * (low - r64).abs().max().item() + slack * scale,
            l2_error=(y - r64).norm().item(),
            l2_allowed=2 * (low - r64).norm().item() + slack * norm,
            finite=bool(y.isfinite().all()),
        )

    def assert_within(self, y: Tensor, what: str = "result") -> None:
        comparison = self.compare(y)
        if comparison.passed:
            return
        if not comparison.finite:
            bad = (~y.isfinite()).sum().item()
            raise AssertionError(f"{what}: {bad} of {y.numel()} values are not finite")
        raise AssertionError(
            f"{what}: max error {comparison.max_error:.3e} of {comparison.max_allowed:.3e} allowed, "
            f"L2 error {comparison.l2_error:.3e} of {comparison.l2_allowed:.3e} allowed; "
            f"{_worst(y, self.r64)}"
        )


def _worst(y: Tensor, r64: Tensor) -> str:
    y = y.to(r64.device).double()
    error = (y - r64.double()).abs()
    place = [int(i) for i in torch.unravel_index(error.argmax(), error.shape)]
    return f"worst at {place}: {y[tuple(place)].item():.6g}, expected {r64[tuple(place)].item():.6g}"


@contextlib.contextmanager
def _reference_conditions() -> Iterator[None]:
    """No gradients, no TF32, and one thread, so that the truth is the same bits on every machine load."""
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    threads = torch.get_num_threads()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn


def upcast(args: Sequence[Any]) -> list[Any]:
    """Operator arguments in float64: every floating tensor, and a dtype argument."""
    result = []
    for value in args:
        if isinstance(value, Tensor) and value.is_floating_point():
            value = value.double()
        elif isinstance(value, torch.dtype):
            value = torch.float64
        result.append(value)
    return result


def _terms(row: Operator, output: str, sizes: Mapping[str, int]) -> int:
    """Terms of the longest single sum behind one value of `output`."""
    terms = {
        "depthwise_conv": lambda s: s["k"] ** 2,
        "depthwise_conv_pool": lambda s: s["k"] ** 2,
        "depthwise_conv_gate": lambda s: s["k"] ** 2,
        "pointwise_conv": lambda s: s["c"],
        "dense_conv": lambda s: s["c"] * s["k"] ** 2,
        "stem_conv": lambda s: s["c"] * s["k"] ** 2,
        "squeeze_excite_gate": lambda s: max(s["c"], s["s"], s["t"]),
        "expand_depthwise": lambda s: max(s["c"], s["k"] ** 2),
        "expand_depthwise_pool": lambda s: max(s["c"], s["k"] ** 2),
        "head_pool": lambda s: max(s["c"], s["h"] * s["w"]),
        "mbconv": lambda s: max(s["c"], s["m"], s["k"] ** 2),
        "fused_mbconv": lambda s: max(s["c"] * s["k"] ** 2, s["m"]),
        "stem_block_sums": lambda s: max(s["c"] * s["k"] ** 2, s["d"] ** 2),
        "stem_block": lambda s: max(s["c"] * s["k"] ** 2, s["d"] ** 2, s["m"]),
    }[row.name](sizes)
    if output in ("sums", "gates"):
        terms = max(terms, sizes["oh"] * sizes["ow"])
    return max(terms, sizes["c"], sizes["s"]) if output == "gates" else terms


@dataclass(frozen=True)
class Expectation:
    """The truth about one call, with the budget of each of its outputs.

    Build it with :meth:`of`; then ``expectation.assert_within(result)`` or ``expectation.compare(result)``.
    """

    op: str
    storage: torch.dtype
    budgets: tuple[Budget, ...]
    # Outputs that only agree in their total over dimension 1.
    totals: tuple[bool, ...] = field(default=())

    @classmethod
    def of(cls, op: str, args: Sequence[Any]) -> Expectation:
        """For operator `op` on schema-ordered `args`, whose tensors have the storage dtype under test."""
        row = OPERATORS[op]
        sizes, storage, _ = check(row, "", args)
        with _reference_conditions():
            truth = _as_tuple(REFERENCE[op](*upcast(args)))
            low = _as_tuple(REFERENCE[op](*args))
        totals = tuple(name == "sums" for name in row.outputs)
        budgets = []
        for (name, spec), exact, rounded, total in zip(row.outputs.items(), truth, low, totals, strict=True):
            dtype = storage if spec.kind == "storage" else single_dtype(storage)
            if total:
                exact, rounded = exact.sum(1), rounded.double().sum(1)
            budgets.append(Budget(exact, rounded, _terms(row, name, sizes), dtype))
        return cls(op, storage, tuple(budgets), totals)

    @property
    def _what(self) -> str:
        return f"{self.op} in {str(self.storage).removeprefix('torch.')}:"

    def _outputs(self, result: Tensor | Sequence[Tensor]) -> list[tuple[str, Tensor, Budget]]:
        names = OPERATORS[self.op].outputs
        return [
            (name, (y.double().sum(1) if total else y).to(budget.r64.device), budget)
            for name, y, budget, total in zip(
                names, _as_tuple(result), self.budgets, self.totals, strict=True
            )
        ]

    def compare(self, result: Tensor | Sequence[Tensor]) -> dict[str, Comparison]:
        return {name: budget.compare(y) for name, y, budget in self._outputs(result)}

    def assert_within(self, result: Tensor | Sequence[Tensor]) -> None:
        for name, y, budget in self._outputs(result):
            budget.assert_within(y, f"{self._what} {name}")
        for name, y, budget in zip(OPERATORS[self.op].outputs, _as_tuple(result), self.budgets, strict=True):
            if y.dtype != budget.dtype:
                raise AssertionError(f"{self._what} {name}: dtype {y.dtype}, expected {budget.dtype}")

    def assert_exact(self, result: Tensor | Sequence[Tensor], outputs: Sequence[str] | None = None) -> None:
        """Bit equality with r64 rounded once, for inputs on which every intermediate value is exact."""
        for name, y, budget in self._outputs(result):
            if outputs is not None and name not in outputs:
                continue
            expected = budget.r64.to(budget.dtype).double()
            y = y.double()
            if not torch.equal(y, expected):
                wrong = int((y != expected).sum())
                raise AssertionError(
                    f"{self._what} {name}: {wrong} of {y.numel()} values differ from the exact result; "
                    f"{_worst(y, expected)}"
                )


def _as_tuple(value: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    return (value,) if isinstance(value, Tensor) else tuple(value)


@dataclass(frozen=True)
class Target:
    """One implementation under test: a backend, packed or not, for one CPU instruction set or the best.

    `device` is where it computes; by default where the backend's kernels read.
    """

    backend: str
    packed: bool = False
    isa: str = "auto"
    device: str = ""

    def __post_init__(self) -> None:
        if not self.device:
            anywhere = self.backend in (backends.Backend.AUTO, backends.Backend.REFERENCE)
            home = "cpu" if anywhere else backends.device_type(backends.parse_backend(self.backend))
            object.__setattr__(self, "device", home)

    def __str__(self) -> str:
        return "-".join(
            [
                self.backend,
                *(["packed"] if self.packed else []),
                *([self.isa] if self.isa != "auto" else []),
                *([self.device] if self.device not in ("cpu", self.backend) else []),
            ]
        )

    @property
    def interpreted(self) -> bool:
        """Whether Python stands in for a GPU, thousands of times slower: tests give it less to do."""
        return native.INTERPRETS_TRITON and self.backend == backends.Backend.TRITON

    def share(self, values: Sequence[Any], turn: int) -> Sequence[Any]:
        """`values`; for an interpreter one of them, by turns: unpacked and packed get neighbours."""
        return [values[(turn + self.packed) % len(values)]] if self.interpreted else values

    def place(self, args: Sequence[Any]) -> list[Any]:
        """`args` with every tensor on this target's device."""
        return [on_device(a, self.device) if isinstance(a, Tensor) else a for a in args]

    def run(self, op: str, args: Sequence[Any]) -> Any:
        """Run `op` on schema-ordered unpacked arguments, wherever they are."""
        if not self.packed:
            return call(op, self.place(args), self.backend)
        return handle(op, "packed", self.backend)(*self.pack_arguments(op, args))

    def pack_arguments(self, op: str, args: Sequence[Any]) -> list[Any]:
        """The arguments of the packed form on this target's device, from those of the unpacked one."""
        row, args = OPERATORS[op], self.place(args)
        sizes, _, _ = check(row, "", args)
        values = {p.name: value for p, value in zip(row.parameters, args, strict=True)}
        weights = [values[name] for name in row.weights]
        activations = {name: values[name] for name in ("activation", "expand_activation") if name in values}
        values["packed"] = pack(op, *weights, **activations, backend=self.backend, isa=self.isa)
        values.update({name: sizes.get(letter, 0) for name, letter in row.geometry.items()})
        return [values[p.name] for p in row.packed_parameters]


def devices() -> list[str]:
    """Kinds of device on this machine."""
    return ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def targets() -> list[Target]:
    """Every implementation that this machine can run; what is absent is not listed, so nothing is skipped."""
    found = []
    for device in devices():
        found += [Target("reference", packed, device=device) for packed in (False, True)]
    for backend in (backends.Backend.CPU, backends.Backend.CUDA, backends.Backend.TRITON):
        place = backends.device_type(backend)
        reason = backends.supports("pointwise_conv", backend, device_type=place, dtype=torch.float32)
        if place not in devices() or reason is not None:
            continue
        found.append(Target(backend.value))
        isas = native.cpu_isas() if backend is backends.Backend.CPU else ("auto",)
        found.extend(Target(backend.value, packed=True, isa=isa) for isa in isas)
    return found


def on_device(tensor: Tensor, device: str) -> Tensor:
    """`tensor` on `device` with the strides, the offset and the gaps that it has; itself if it is there."""
    if tensor.device.type == device:
        return tensor
    length = tensor.untyped_storage().nbytes() // tensor.element_size()
    memory = tensor.as_strided((length,), (1,), 0).to(device)
    return memory.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def arrange(tensor: Tensor, layout: str) -> Tensor:
    """The same values as `tensor`, [N, C, H, W], in another memory layout."""
    if layout == "contiguous":
        return tensor.contiguous()
    if layout == "channels_last":
        return tensor.contiguous(memory_format=torch.channels_last)
    n, c, h, w = tensor.shape
    if layout == "sliced":
        larger = torch.full((n + 1, h + 2, w + 3, c + 5), float("nan") if tensor.is_floating_point() else 255)
        larger = larger.to(tensor.dtype).permute(0, 3, 1, 2)
        part = larger[1:, 2 : c + 2, 1 : h + 1, 3:]
    elif layout == "offset":
        # One element past an aligned address: vector loads must not assume more.
        storage = torch.zeros(tensor.numel() + 1, dtype=tensor.dtype)
        part = storage[1:].view(n, h, w, c).permute(0, 3, 1, 2)
    else:
        raise ValueError(f"layout = {layout!r}, expected one of {', '.join(LAYOUTS)}")
    return part.copy_(tensor)


_SCALARS: dict[str, Any] = {
    "stride": 1,
    "activation": "silu",
    "expand_activation": "silu",
    "se_activation": "silu",
    "gate": "sigmoid",
    "residual": False,
}
_SIZES = {"n": 2, "c": 8, "h": 9, "w": 7, "k": 3, "d": 3, "o": 16, "m": 24, "s": 4}


def make_args(
    op: str,
    *,
    dtype: torch.dtype = torch.float32,
    exact: bool = False,
    without: Sequence[str] = (),
    layout: str = "channels_last",
    image_dtype: torch.dtype | None = None,
    seed: int = 0,
    device: str = "cpu",
    **given: Any,
) -> list[Any]:
    """Schema-ordered arguments of `op`: random, of the scale of a trained network, or exact.

    Args:
        exact: every tensor has integers from -2 to 2, so that sums are exact in float32.
        without: optional tensors to leave out.
        layout: of the four-dimensional inputs; see :func:`arrange`.
        image_dtype: of the image of ``stem_conv`` and ``stem_block*``; default uint8, float32 when exact.
        given: sizes by their letters (n, c, h, w, k, d, o, m, s) and scalar arguments (stride, padding, ...).
    """
    row = OPERATORS[op]
    sizes = {**_SIZES, **{letter: given.pop(letter) for letter in _SIZES if letter in given}}
    if op == "mbconv" and "w_expand" in without:
        sizes["m"] = sizes["c"]
    half = sizes["k"] // 2
    scalars = {**_SCALARS, "padding": (half,) * 4, "dtype": dtype, **given}
    if op in ("mbconv", "fused_mbconv") and scalars["residual"]:
        sizes["o"] = sizes["c"]
    top, left, bottom, right = scalars["padding"]
    sizes["oh"] = conv_output_size(sizes["h"], sizes["k"], scalars["stride"], top, bottom)
    sizes["ow"] = conv_output_size(sizes["w"], sizes["k"], scalars["stride"], left, right)
    sizes["t"] = pool_tiles(sizes["h"], sizes["w"])
    scalars.setdefault("count", sizes["h"] * sizes["w"])
    generator = torch.Generator().manual_seed(seed)
    args = []
    for parameter in row.parameters:
        name = parameter.name
        if not parameter.is_tensor:
            args.append(scalars[name])
        elif parameter.optional and name in without:
            args.append(None)
        else:
            spec = row.tensors[name]
            shape = [1 if letter == "1" else sizes[letter] for letter in spec.shape]
            value = _values(name, spec, shape, exact, image_dtype, scalars["count"], generator)
            value = value.to(_dtype_of(spec, value, dtype, image_dtype))
            is_map = name in ("x", "image", "residual")
            args.append(on_device(arrange(value, layout) if is_map else value, device))
    return args


def _dtype_of(
    spec: TensorSpec, value: Tensor, dtype: torch.dtype, image_dtype: torch.dtype | None
) -> torch.dtype:
    if spec.kind == "image":
        return image_dtype or value.dtype
    return dtype if spec.kind == "storage" else single_dtype(dtype)


def _values(
    name: str,
    spec: TensorSpec,
    shape: list[int],
    exact: bool,
    image_dtype: torch.dtype | None,
    count: int,
    generator: torch.Generator,
) -> Tensor:
    if exact:
        return torch.randint(-2, 3, shape, generator=generator).float()
    if name == "image" and image_dtype in (None, torch.uint8):
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    if name in ("gate", "mean"):
        return torch.rand(shape, generator=generator)
    if name == "std":
        return 0.2 + 0.1 * torch.rand(shape, generator=generator)
    values = torch.randn(shape, generator=generator)
    if name == "sums":
        return (values + 0.5) * (count / max(1, shape[1]))
    if len(shape) == 4 and name not in ("x", "image", "residual"):
        return values / math.sqrt(math.prod(shape[1:]))
    return values * 0.3 if spec.kind in ("bias", "single") else values
