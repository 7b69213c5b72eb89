"""What the CUDA library packs, read slowly; and what it refuses to read. No GPU is needed."""

from __future__ import annotations

import itertools

import pytest
import torch

from effnet_fast.ops.cuda_packing import pack_weights
from effnet_fast.ops.schemas import OPERATORS
from effnet_fast.testing import LOW_DTYPES, make_args
from tests.build.modules import compiled

PACKED = [
    "depthwise_conv", "pointwise_conv", "stem_conv", "head_pool", "squeeze_excite_gate",
    "depthwise_conv_gate", "stem_block_sums", "stem_block",
]  # fmt: skip
DTYPE_CODES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}  # enum DType of csrc/common/dtype.h
USES = [
    (op, dtype, halved)
    for op in PACKED
    for dtype in (LOW_DTYPES if op != "squeeze_excite_gate" else (torch.float32,))
    for halved in ((False, True) if dtype != torch.float32 else (False,))
]


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return compiled("packed", tmp_path_factory.mktemp("packed"))


def weights_of(op: str, dtype: torch.dtype, **options) -> dict[str, torch.Tensor | None]:
    args = make_args(op, dtype=dtype, c=6, o=5, s=3, **options)
    row = OPERATORS[op]
    given = {p.name: value for p, value in zip(row.parameters, args, strict=True)}
    return {name: given[name] for name in row.weights}


class Reader:
    """Takes one array after the other from a packed tensor, a value at a time."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor, self.at = tensor, 0

    def take(self, expected: list[float], dtype: torch.dtype) -> None:
        assert self.at % 64 == 0
        for i, value in enumerate(expected):
            first = self.at + i * dtype.itemsize
            assert self.tensor[first : first + dtype.itemsize].clone().view(dtype).item() == value
        self.at += -(-len(expected) * dtype.itemsize // 64) * 64


def scaled(tensor: torch.Tensor | None, factor: float, length: int = 0) -> list[float]:
    return [0.0] * length if tensor is None else [factor * value for value in tensor.flatten().tolist()]


def read(op: str, reader: Reader, weights: dict, factor: float, dtype: torch.dtype) -> None:
    """Walk through the packed weights of `op` with loops in the order in which the kernels' comments name."""
    if op == "squeeze_excite_gate":
        for name, length in (("w1", 0), ("b1", 3), ("w2", 0), ("b2", 6)):
            reader.take(scaled(weights[name], 1, length), torch.float32)
        return
    if op.startswith("stem_block"):
        parts = {"stem_conv": "stem", "depthwise_conv": "dw", "pointwise_conv": "project"}
        for part, name in list(parts.items())[: 2 if op == "stem_block_sums" else 3]:
            own = {"weight": weights[f"w_{name}"], "bias": weights[f"b_{name}"]}
            read(part, reader, own, 1.0 if name == "project" else factor, dtype)
        return
    weight = weights["weight"]
    out, channels, k = weight.shape[0], weight.shape[1], weight.shape[2]
    taps = list(itertools.product(range(k), range(k)))
    if op.startswith("depthwise"):
        values = [weight[c, 0, y, x] for y, x in taps for c in range(out)]
    else:
        values = [weight[o, c, y, x] for o in range(out) for y, x in taps for c in range(channels)]
    reader.take([factor * value.item() for value in values], dtype)
    reader.take(scaled(weights["bias"], factor, out), torch.float32)
    if op == "depthwise_conv_gate":
        read("squeeze_excite_gate", reader, weights, 1, torch.float32)


WITHOUT = ("bias", "b1", "b2", "b_stem", "b_dw", "b_project")


@pytest.mark.parametrize("without", [(), WITHOUT], ids=["biased", "unbiased"])
@pytest.mark.parametrize("activation", ["relu6", "silu"])
@pytest.mark.parametrize("dtype", LOW_DTYPES)
@pytest.mark.parametrize("op", PACKED)
def test_arrays(op, dtype, activation, without) -> None:
    weights = weights_of(op, dtype, without=without)
    result = pack_weights(OPERATORS[op], list(weights.values()), activation)
    halved = activation == "silu" and dtype != torch.float32 and op != "squeeze_excite_gate"
    reader = Reader(result)
    read(op, reader, weights, 0.5 if halved else 1.0, dtype)
    assert 0 < result.numel() - reader.at < 64


def test_every_use_has_a_length_of_its_own(packed) -> None:
    lengths = {packed.length(op, DTYPE_CODES[dtype], halved, [128, 64]) for op, dtype, halved in USES}
    assert len(lengths) == len(USES)
    assert all(192 < length < 256 for length in lengths)


@pytest.mark.parametrize(("op", "dtype", "halved"), USES)
def test_only_its_own_use_is_read(packed, op, dtype, halved) -> None:
    sections = [100, 24]
    length = packed.length(op, DTYPE_CODES[dtype], halved, sections)
    for other, other_dtype, other_halved in USES:
        problem = packed.problem(length, other, DTYPE_CODES[other_dtype], other_halved, sections)
        if other != op:
            assert problem == "packed holds the weights of another operator"
        elif other_dtype != dtype:
            assert problem == "packed holds weights of another dtype than x's"
        elif other_halved != halved:
            assert "made for another activation" in problem
        else:
            assert problem == ""


def test_other_lengths_are_refused(packed) -> None:
    use = ("pointwise_conv", DTYPE_CODES[torch.float16], True)
    length = packed.length(*use, [128, 64])
    assert "another shape" in packed.problem(length, *use, [129, 64])
    assert "another shape" in packed.problem(length, *use, [128])
    assert "another shape" in packed.problem(length + 64, *use, [128, 64])
    for other in (0, 64, 192, 255):
        assert "pack the weights again" in packed.problem(other, *use, [128, 64])


def test_an_operator_without_a_layout_is_refused(packed) -> None:
    with pytest.raises(ValueError, match="no packed weights for mbconv"):
        packed.length("mbconv", 0, False, [])
