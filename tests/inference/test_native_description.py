"""Descriptions of native programs: what is computed by a right one, and that a wrong one is refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet_fast import ops
from effnet_fast.backends import Backend, has_kernel
from effnet_fast.inference.native_program import ImageRange, described, runs
from effnet_fast.ops.schemas import OPERATORS


def _small_program() -> tuple[list, tuple[list[str], list[int], list[torch.Tensor]]]:
    """A stem and a projection with a residual: tensors, and their description."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weight, mean = torch.randn(8, 3, 3, 3), torch.tensor([0.4, 0.5, 0.6])
        stem = ops.pack("stem_conv", weight, None, activation="silu", backend="cpu")
        point = ops.pack("pointwise_conv", torch.randn(8, 8, 1, 1), torch.randn(8), backend="cpu")
    y, z = (torch.empty(2, 4, 4, 8).permute(0, 3, 1, 2) for _ in range(2))
    calls = [
        ("stem_conv_packed_into", (y, ImageRange(0, 2), stem, 8, 3, 2, (1, 1, 1, 1), "silu", mean, mean,
                                   torch.float32)),
        ("pointwise_conv_packed_into", (z, y, point, 8, "identity", None, y)),
    ]  # fmt: skip
    return [y, z, stem, point], described(calls)


def _run(description, images: torch.Tensor) -> None:
    number = torch.ops.effnet_fast.cpu_program(*description)
    try:
        torch.ops.effnet_fast.cpu_program_run(number, images)
    finally:
        torch.ops.effnet_fast.cpu_program_free(number)


def test_a_described_program_computes_what_its_calls_do():
    (y, z, stem, point), description = _small_program()
    images = torch.randn(2, 3, 8, 8)
    _run(description, images)
    expected_y, expected_z = torch.empty_like(y), torch.empty_like(z)
    mean = description[2][2]
    assert mean.shape == (3,)
    ops.handle("stem_conv", "packed_into", "cpu")(
        expected_y, images, stem, 8, 3, 2, (1, 1, 1, 1), "silu", mean, mean, torch.float32
    )
    ops.handle("pointwise_conv", "packed_into", "cpu")(
        expected_z, expected_y, point, 8, "identity", None, expected_y
    )
    assert torch.equal(y, expected_y)
    assert torch.equal(z, expected_z)


def _broken(change) -> tuple:
    _, (names, words, tensors) = _small_program()
    names, words, tensors = list(names), list(words), list(tensors)
    change(names, words, tensors)
    return names, words, tensors


# Words of the stem: name, count, y, (images, 0, 2), packed, out, kernel, stride, four paddings, activation,
# mean, std, dtype; then those of the projection.
def _name(place: int, name: str):
    return lambda names, words, tensors: names.__setitem__(place, name)


def _word(place: int, word: int):
    return lambda names, words, tensors: words.__setitem__(place, word)


def _tensor(place: int, made):
    return lambda names, words, tensors: tensors.__setitem__(place, made(tensors))


BROKEN = {
    "unknown operator": (_name(0, "stem_conv"), ValueError, "no operator 'stem_conv'"),
    "no such name": (_word(0, 99), ValueError, "no name 99"),
    "negative name": (_word(0, -1), ValueError, "no name -1"),
    "count too large": (_word(1, 1 << 62), ValueError, "ends within call 0"),
    "count negative": (_word(1, -1), ValueError, "ends within call 0"),
    "cut off": (lambda n, w, t: w.pop(), ValueError, "ends within call 1"),
    "too few words": (
        lambda n, w, t: (w.pop(), w.__setitem__(19, w[19] - 1)), ValueError, "pointwise.*too few words"),
    "too many words": (
        lambda n, w, t: (w.append(0), w.__setitem__(19, w[19] + 1)), ValueError, "pointwise.*too many words"),
    "no such tensor": (_word(2, 5), ValueError, "stem_conv.*no tensor 5"),
    "no tensor where one must be": (_word(2, -1), ValueError, "no tensor -1"),
    "images backwards": (_word(4, 3), ValueError, r"begin\.\.end, got 3\.\.2"),
    "more images than there are": (_word(5, 9), RuntimeError, r"images 0\.\.9"),
    "fewer images than y has": (_word(5, 1), RuntimeError, "y has shape"),
    "another kernel": (_word(8, 5), RuntimeError, "kernel"),
    "stride 0": (_word(9, 0), RuntimeError, "stride"),
    "huge padding": (_word(10, (1 << 63) - 1), RuntimeError, "stem_conv"),
    "weights as output": (_word(2, 1), RuntimeError, "stem_conv"),
    "weights of another operator": (_tensor(1, lambda t: t[4]), RuntimeError, "another operator"),
    "a truncated block": (_tensor(1, lambda t: t[1][:100]), RuntimeError, "ops.pack"),
    "another dtype": (_tensor(0, lambda t: t[0].half()), RuntimeError, "dtype"),
    "not a dtype": (_name(2, "float64"), ValueError, "dtype must be .* got 'float64'"),
    "not an activation": (_name(1, "gelu"), ValueError, "stem_conv.*silu.*'gelu'"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_a_wrong_description_is_refused(what):
    change, error, message = BROKEN[what]
    with pytest.raises(error, match=message):
        _run(_broken(change), torch.randn(2, 3, 8, 8))


@settings(max_examples=300, deadline=None)
@given(
    place=st.integers(0, 26),
    word=st.one_of(
        st.integers(-3, 12), st.sampled_from([1 << 20, 1 << 31, 1 << 40, (1 << 63) - 1, -(1 << 63)])
    ),
    again=st.integers(0, 26),
)
def test_whatever_word_is_wrong_it_is_refused_or_computed_within_its_tensors(place, word, again):
    """Memory that no description names is seen not to be touched, and nothing crashes."""
    _, (names, words, tensors) = _small_program()
    fence = 4096
    fenced = []
    for tensor in tensors:
        flat = tensor.permute(0, 2, 3, 1).reshape(-1) if tensor.dim() == 4 else tensor
        memory = torch.full((2 * fence + flat.nbytes,), 77, dtype=torch.uint8)
        inner = memory[fence : fence + flat.nbytes].view(flat.dtype)
        inner.copy_(flat)
        n, c, h, w = tensor.shape if tensor.dim() == 4 else (1, 1, 1, 1)
        fenced.append((memory, inner.view(n, h, w, c).permute(0, 3, 1, 2) if tensor.dim() == 4 else inner))
    words = list(words)
    assert len(words) == 27
    words[place] = word
    words[again] = words[again] + 1 if again != place else words[again]
    with suppress(ValueError, RuntimeError):
        _run((names, words, [tensor for _, tensor in fenced]), torch.randn(2, 3, 8, 8))
    for memory, _ in fenced:
        assert (memory[:fence] == 77).all()
        assert (memory[-fence:] == 77).all()


def test_a_tensor_that_changes_afterwards_is_checked_again():
    (_, z, _, point), description = _small_program()
    number = torch.ops.effnet_fast.cpu_program(*description)
    images = torch.randn(2, 3, 8, 8)
    torch.ops.effnet_fast.cpu_program_run(number, images)
    z.resize_(1, 8, 4, 4)
    with pytest.raises(RuntimeError, match="pointwise_conv_packed_into: .*y"):
        torch.ops.effnet_fast.cpu_program_run(number, images)
    point.set_(torch.zeros(8, dtype=torch.uint8))
    with pytest.raises(RuntimeError, match="pointwise_conv_packed_into: .*ops.pack"):
        torch.ops.effnet_fast.cpu_program_run(number, images)
    torch.ops.effnet_fast.cpu_program_free(number)


def test_numbers_are_not_used_again():
    _, description = _small_program()
    first = torch.ops.effnet_fast.cpu_program(*description)
    torch.ops.effnet_fast.cpu_program_free(first)
    second = torch.ops.effnet_fast.cpu_program(*description)
    torch.ops.effnet_fast.cpu_program_free(second)
    assert second != first


def test_only_handles_of_the_library_on_a_cpu_are_taken():
    (y, z, _, point), _ = _small_program()
    handle = ops.handle("pointwise_conv", "packed_into", "cpu")
    given = (z, y, point, 8, "identity", None, None)
    assert len(runs([(handle, given)])) == 1
    assert runs([(handle, tuple(v.to("meta") if isinstance(v, torch.Tensor) else v for v in given))]) == ()
    assert runs([(ops.handle("pointwise_conv", "packed_into", "triton"), given)]) == ()
    assert runs([(ops.handle("pointwise_conv", "packed_into", "reference"), given)]) == ()


def test_the_library_runs_every_operator_that_it_has_a_kernel_for():
    kernels = {f"{name}_packed_into" for name in OPERATORS if has_kernel(f"{name}_packed_into", Backend.CPU)}
    assert set(torch.ops.effnet_fast.cpu_program_operators().split(",")) == kernels
