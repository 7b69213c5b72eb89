"""The table of operators, from which everything that can be derived is derived.

One row says what an operator takes, what it returns, which of its arguments are weights, and the shape and
kind of every tensor. From it come, by code:

- four dispatcher names: ``<op>``, ``<op>_into``, ``<op>_packed``, ``<op>_packed_into``, and ``pack_<op>``;
- their schema strings (this file), their fakes (:mod:`.fakes`), argument checks (:mod:`.validation`), output
  shapes (:mod:`.geometry`) and autograd guards (:mod:`.registration`).

A new operator is one row here, one function in :mod:`.reference`, and one kernel file a backend. Schemas
exist even when nothing is compiled: C++ only implements them.

Shapes are written in letters that are bound by the tensors of one call::

    n c h w   batch, channels, height and width of the input
    k         kernel size                      o    output channels
    d         kernel size of a depthwise convolution behind one of kernel size k
    m         expanded ("middle") channels     s    squeezed channels
    oh ow     output height and width          t    pooling tiles, ceil(oh/16) * ceil(ow/16)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

NAMESPACE = "effnet_fast"
VARIANTS = ("", "into", "packed", "packed_into")

ACTIVATIONS = ("identity", "relu", "relu6", "silu", "hardswish")
GATES = ("sigmoid", "hardsigmoid")
STORAGE_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

# A backend whose kernels share a device with another backend's gets operators of its own (two kernels on one
# dispatch key replace each other silently): for its suffix every variant is derived once more.
TWINS = ("", "_triton")


@dataclass(frozen=True)
class TensorSpec:
    """Shape in letters, and kind: which dtypes are accepted.

    ``storage``: the dtype of the call. ``bias``: float32 or the storage dtype. ``single``: float32, or
    float64 in a float64 call. ``image``: uint8, float32 or the storage dtype.
    """

    kind: str
    shape: tuple[str, ...]


def _storage(shape: str) -> TensorSpec:
    return TensorSpec("storage", tuple(shape.split()))


def _bias(shape: str) -> TensorSpec:
    return TensorSpec("bias", tuple(shape.split()))


def _single(shape: str) -> TensorSpec:
    return TensorSpec("single", tuple(shape.split()))


@dataclass(frozen=True)
class Parameter:
    """One argument: ``Tensor? gate=None`` is type ``Tensor?``, name ``gate``, default ``None``."""

    type: str
    name: str
    default: str | None = None

    @property
    def is_tensor(self) -> bool:
        return self.type.startswith("Tensor")

    @property
    def optional(self) -> bool:
        return self.type.endswith("?")

    def __str__(self) -> str:
        return f"{self.type} {self.name}" + ("" if self.default is None else f"={self.default}")


def _parse(arguments: str) -> tuple[Parameter, ...]:
    parameters = []
    for text in arguments.split(", "):
        declaration, _, default = text.partition("=")
        type_, name = declaration.split()
        parameters.append(Parameter(type_, name, default or None))
    return tuple(parameters)


@dataclass(frozen=True, eq=False)
class Operator:
    """One row of the table."""

    name: str
    arguments: str
    tensors: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    weights: tuple[str, ...]
    # What a packed call is told about its weights: argument name -> letter of the shapes above.
    geometry: Mapping[str, str]
    # The argument that fixes the storage dtype: a tensor, or the ScalarType argument itself.
    storage: str = "x"
    # The operator whose packed weights this one reads as well.
    packed_as: str | None = None
    # Operators that this one is composed of where a backend has no kernel of its own.
    parts: tuple[str, ...] = field(default=())

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        return _parse(self.arguments)

    @cached_property
    def packed_parameters(self) -> tuple[Parameter, ...]:
        """The parameters, each run of weights replaced by ``packed`` (once) and the run's geometry."""
        result: list[Parameter] = []
        told: set[str] = set()
        run_letters: set[str] = set()
        in_run, has_packed = False, False

        def close_run() -> None:
            for name, letter in self.geometry.items():
                if letter in run_letters and name not in told:
                    told.add(name)
                    result.append(Parameter("int", name))

        for parameter in self.parameters:
            if parameter.name in self.weights:
                if not has_packed:
                    result.append(Parameter("Tensor", "packed"))
                    has_packed = True
                in_run = True
                run_letters.update(self.tensors[parameter.name].shape)
                continue
            if in_run:
                close_run()
                in_run, run_letters = False, set()
            result.append(parameter)
        if in_run:
            close_run()
        return tuple(result)

    def parameters_of(self, variant: str) -> tuple[Parameter, ...]:
        return self.packed_parameters if variant.startswith("packed") else self.parameters

    @cached_property
    def dense_inputs(self) -> Mapping[str, tuple[tuple[int, bool], ...]]:
        """Of each variant: position of every input that kernels read densely, and whether it is a map.

        Weights are packed from any strides, and the first convolution reads its image at any strides.
        """
        positions = {}
        for variant in VARIANTS:
            names = [parameter.name for parameter in self.parameters_of(variant)]
            positions[variant] = tuple(
                (names.index(name), len(spec.shape) == 4)
                for name, spec in self.tensors.items()
                if name not in self.weights and spec.kind != "image"
            )
        return positions

    def dispatcher_name(self, variant: str, twin: str = "") -> str:
        """``depthwise_conv`` and ``packed_into`` give ``depthwise_conv_packed_into``."""
        return self.name + (f"_{variant}" if variant else "") + twin

    def schema(self, variant: str) -> str:
        arguments = [str(parameter) for parameter in self.parameters_of(variant)]
        if variant.endswith("into"):
            outputs = [f"Tensor({chr(ord('a') + i)}!) {name}" for i, name in enumerate(self.outputs)]
            return f"({', '.join(outputs + arguments)}) -> ()"
        returned = ", ".join("Tensor" for _ in self.outputs)
        return f"({', '.join(arguments)}) -> " + (f"({returned})" if len(self.outputs) > 1 else returned)

    @property
    def pack_name(self) -> str:
        return f"pack_{self.packed_as or self.name}"

    @cached_property
    def pack_schema(self) -> str:
        weights = [f"{p.type} {p.name}" for p in self.parameters if p.name in self.weights]
        # Kernels may fold an activation's constants into the weights in front of it.
        folded = [str(p) for p in self.parameters if p.name in ("expand_activation", "activation")]
        return f"({', '.join([*weights, *folded])}, str isa) -> Tensor"


_CONV = "int stride, int[4] padding, str activation"
_SQUEEZE_EXCITE = {
    "w1": _single("s c 1 1"),
    "b1": _single("s"),
    "w2": _single("c s 1 1"),
    "b2": _single("c"),
}
_DEPTHWISE = {"x": _storage("n c h w"), "weight": _storage("c 1 k k"), "bias": _bias("c")}
_EXPAND_DEPTHWISE = {
    "x": _storage("n c h w"),
    "w_expand": _storage("m c 1 1"),
    "b_expand": _bias("m"),
    "w_dw": _storage("m 1 k k"),
    "b_dw": _bias("m"),
}
_EXPAND_DEPTHWISE_ARGUMENTS = (
    f"Tensor x, Tensor w_expand, Tensor? b_expand, str expand_activation, Tensor w_dw, Tensor? b_dw, {_CONV}"
)

_STEM_BLOCK = {
    "image": TensorSpec("image", ("n", "c", "h", "w")),
    "w_stem": _storage("m c k k"),
    "b_stem": _bias("m"),
    "w_dw": _storage("m 1 d d"),
    "b_dw": _bias("m"),
    "mean": _single("c"),
    "std": _single("c"),
}

_ROWS = (
    Operator(
        name="depthwise_conv",
        arguments=f"Tensor x, Tensor weight, Tensor? bias, {_CONV}",
        tensors=_DEPTHWISE,
        outputs={"y": _storage("n c oh ow")},
        weights=("weight", "bias"),
        geometry={"kernel": "k"},
    ),
    Operator(
        name="depthwise_conv_pool",
        arguments=f"Tensor x, Tensor weight, Tensor? bias, {_CONV}",
        tensors=_DEPTHWISE,
        outputs={"y": _storage("n c oh ow"), "sums": _single("n t c")},
        weights=("weight", "bias"),
        geometry={"kernel": "k"},
        packed_as="depthwise_conv",
    ),
    Operator(
        name="depthwise_conv_gate",
        arguments=f"Tensor x, Tensor weight, Tensor? bias, {_CONV}, "
        "Tensor w1, Tensor? b1, Tensor w2, Tensor? b2, str se_activation, str gate",
        tensors={**_DEPTHWISE, **_SQUEEZE_EXCITE},
        outputs={"y": _storage("n c oh ow"), "gates": _single("n c")},
        weights=("weight", "bias", "w1", "b1", "w2", "b2"),
        geometry={"kernel": "k", "squeeze": "s"},
        parts=("depthwise_conv_pool", "squeeze_excite_gate"),
    ),
    Operator(
        name="pointwise_conv",
        arguments="Tensor x, Tensor weight, Tensor? bias, str activation, "
        "Tensor? gate=None, Tensor? residual=None",
        tensors={
            "x": _storage("n c h w"),
            "weight": _storage("o c 1 1"),
            "bias": _bias("o"),
            "gate": _single("n c"),
            "residual": _storage("n o h w"),
        },
        outputs={"y": _storage("n o h w")},
        weights=("weight", "bias"),
        geometry={"out_channels": "o"},
    ),
    Operator(
        name="dense_conv",
        arguments=f"Tensor x, Tensor weight, Tensor? bias, {_CONV}, Tensor? residual=None",
        tensors={
            "x": _storage("n c h w"),
            "weight": _storage("o c k k"),
            "bias": _bias("o"),
            "residual": _storage("n o oh ow"),
        },
        outputs={"y": _storage("n o oh ow")},
        weights=("weight", "bias"),
        geometry={"out_channels": "o", "kernel": "k"},
    ),
    Operator(
        name="stem_conv",
        arguments=f"Tensor image, Tensor weight, Tensor? bias, {_CONV}, "
        "Tensor? mean, Tensor? std, ScalarType dtype",
        tensors={
            "image": TensorSpec("image", ("n", "c", "h", "w")),
            "weight": _storage("o c k k"),
            "bias": _bias("o"),
            "mean": _single("c"),
            "std": _single("c"),
        },
        outputs={"y": _storage("n o oh ow")},
        weights=("weight", "bias"),
        geometry={"out_channels": "o", "kernel": "k"},
        storage="dtype",
    ),
    Operator(
        name="squeeze_excite_gate",
        arguments="Tensor sums, int count, Tensor w1, Tensor? b1, Tensor w2, Tensor? b2, "
        "str activation, str gate",
        tensors={"sums": _single("n t c"), **_SQUEEZE_EXCITE},
        outputs={"y": _single("n c")},
        weights=("w1", "b1", "w2", "b2"),
        geometry={"squeeze": "s"},
        storage="sums",
    ),
    Operator(
        name="expand_depthwise",
        arguments=_EXPAND_DEPTHWISE_ARGUMENTS,
        tensors=_EXPAND_DEPTHWISE,
        outputs={"y": _storage("n m oh ow")},
        weights=("w_expand", "b_expand", "w_dw", "b_dw"),
        geometry={"expanded": "m", "kernel": "k"},
        parts=("pointwise_conv", "depthwise_conv"),
    ),
    Operator(
        name="expand_depthwise_pool",
        arguments=_EXPAND_DEPTHWISE_ARGUMENTS,
        tensors=_EXPAND_DEPTHWISE,
        outputs={"y": _storage("n m oh ow"), "sums": _single("n t m")},
        weights=("w_expand", "b_expand", "w_dw", "b_dw"),
        geometry={"expanded": "m", "kernel": "k"},
        packed_as="expand_depthwise",
        parts=("pointwise_conv", "depthwise_conv_pool"),
    ),
    Operator(
        name="head_pool",
        arguments="Tensor x, Tensor weight, Tensor? bias, str activation",
        tensors={"x": _storage("n c h w"), "weight": _storage("o c 1 1"), "bias": _bias("o")},
        outputs={"y": _single("n o")},
        weights=("weight", "bias"),
        geometry={"out_channels": "o"},
    ),
    Operator(
        name="mbconv",
        arguments="Tensor x, Tensor? w_expand, Tensor? b_expand, Tensor w_dw, Tensor? b_dw, "
        "Tensor? w1, Tensor? b1, Tensor? w2, Tensor? b2, Tensor w_project, Tensor? b_project, "
        f"{_CONV}, str se_activation, str gate, bool residual",
        tensors={
            **_EXPAND_DEPTHWISE,
            "w1": _single("s m 1 1"),
            "b1": _single("s"),
            "w2": _single("m s 1 1"),
            "b2": _single("m"),
            "w_project": _storage("o m 1 1"),
            "b_project": _bias("o"),
        },
        outputs={"y": _storage("n o oh ow")},
        weights=(
            "w_expand", "b_expand", "w_dw", "b_dw", "w1", "b1", "w2", "b2", "w_project", "b_project",
        ),
        # squeeze = 0: no squeeze-excite. Whether there is an expansion is known to the packed weights.
        geometry={"expanded": "m", "out_channels": "o", "kernel": "k", "squeeze": "s"},
        parts=("pointwise_conv", "depthwise_conv", "depthwise_conv_gate"),
    ),
    Operator(
        name="fused_mbconv",
        arguments="Tensor x, Tensor w_expand, Tensor? b_expand, Tensor w_project, Tensor? b_project, "
        f"{_CONV}, bool residual",
        tensors={
            "x": _storage("n c h w"),
            "w_expand": _storage("m c k k"),
            "b_expand": _bias("m"),
            "w_project": _storage("o m 1 1"),
            "b_project": _bias("o"),
        },
        outputs={"y": _storage("n o oh ow")},
        weights=("w_expand", "b_expand", "w_project", "b_project"),
        geometry={"expanded": "m", "out_channels": "o", "kernel": "k"},
        parts=("dense_conv", "pointwise_conv"),
    ),
    # The depthwise convolution has stride 1 and is padded to the size of its input: d // 2 on every side.
    Operator(
        name="stem_block_sums",
        arguments="Tensor image, Tensor w_stem, Tensor? b_stem, Tensor w_dw, Tensor? b_dw, "
        f"{_CONV}, Tensor? mean, Tensor? std, ScalarType dtype",
        tensors=_STEM_BLOCK,
        outputs={"sums": _single("n t m")},
        weights=("w_stem", "b_stem", "w_dw", "b_dw"),
        geometry={"stem_channels": "m", "kernel": "k", "depthwise_kernel": "d"},
        storage="dtype",
        parts=("stem_conv", "depthwise_conv_pool"),
    ),
    Operator(
        name="stem_block",
        arguments="Tensor image, Tensor w_stem, Tensor? b_stem, Tensor w_dw, Tensor? b_dw, "
        f"Tensor w_project, Tensor? b_project, {_CONV}, "
        "Tensor? gate, Tensor? mean, Tensor? std, ScalarType dtype",
        tensors={
            **_STEM_BLOCK,
            "w_project": _storage("o m 1 1"),
            "b_project": _bias("o"),
            "gate": _single("n m"),
        },
        outputs={"y": _storage("n o oh ow")},
        weights=("w_stem", "b_stem", "w_dw", "b_dw", "w_project", "b_project"),
        geometry={
            "stem_channels": "m", "out_channels": "o", "kernel": "k", "depthwise_kernel": "d",
        },
        storage="dtype",
        parts=("stem_conv", "depthwise_conv", "pointwise_conv"),
    ),
)  # fmt: skip

OPERATORS: dict[str, Operator] = {row.name: row for row in _ROWS}


def operator(name: str) -> Operator:
    """The row called `name`; ValueError with the known names otherwise."""
    row = OPERATORS.get(name)
    if row is None:
        raise ValueError(f"unknown operator {name!r}; known operators: {', '.join(OPERATORS)}")
    return row


def with_defaults(row: Operator, variant: str, args: Sequence[Any]) -> list[Any]:
    """Completed `args`: the dispatcher leaves out trailing ones that equal their default, None."""
    missing = len(row.parameters_of(variant)) - len(args)
    return [*args, *[None] * missing]


def dispatcher_schemas() -> dict[str, str]:
    """Every dispatcher name of the package with its schema, packing operators included."""
    schemas = {}
    for row in _ROWS:
        for twin in TWINS:
            for variant in VARIANTS:
                schemas[row.dispatcher_name(variant, twin)] = row.schema(variant)
            if row.packed_as is None:
                schemas[row.pack_name + twin] = row.pack_schema
    return schemas


# Held for the life of the process: a Library takes its definitions back when it is collected.
LIBRARY = torch.library.Library(NAMESPACE, "FRAGMENT")
for _name, _schema in dispatcher_schemas().items():
    LIBRARY.define(_name + _schema, tags=(torch.Tag.pt2_compliant_tag,))


def overload(name: str) -> torch._ops.OpOverload:
    """The dispatcher operator called `name` in this namespace."""
    return getattr(getattr(torch.ops, NAMESPACE), name).default
