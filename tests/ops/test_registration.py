"""Every dispatcher operator under opcheck, torch.compile and torch.export, and its refusal of gradients."""

from __future__ import annotations

import pytest
import torch

from effnet_fast import backends, ops
from effnet_fast.ops.geometry import allocate
from effnet_fast.ops.schemas import OPERATORS, VARIANTS, overload
from effnet_fast.ops.validation import check
from effnet_fast.testing import Target, devices, make_args, targets

FORMS = [(op, variant) for op in OPERATORS for variant in VARIANTS]


def _twin(target: Target) -> str:
    return backends.twin(backends.parse_backend(target.backend))


def _registered() -> list[Target]:
    """Who is behind the dispatcher's operators: what `auto` chooses on each kind of device, and the twins."""
    chosen = [
        backends.resolve("mbconv", "auto", device_type=device, dtype=torch.float32) for device in devices()
    ]
    found = [Target(str(backend), device=device) for backend, device in zip(chosen, devices(), strict=True)]
    found += [target for target in targets() if not target.packed and _twin(target)]
    return list(dict.fromkeys(found))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "behind" in metafunc.fixturenames:
        metafunc.parametrize("behind", _registered(), ids=str)


def _call(behind: Target, op: str, variant: str, **options) -> tuple:
    """The dispatcher operator of `variant`, with arguments for it."""
    row = OPERATORS[op]
    if behind.interpreted:  # these tests call it hundreds of times, and look at metadata
        options = {"n": 1, "h": 3, "w": 4, **options}
    args = make_args(op, device=behind.device, **options)
    outputs = allocate(row, *check(row, "", args)) if variant.endswith("into") else ()
    if variant.startswith("packed"):
        args = behind.pack_arguments(op, args)
    return overload(row.dispatcher_name(variant, _twin(behind))), (*outputs, *args)


def _asked(behind: Target) -> str:
    """What a caller asks for to get it."""
    return behind.backend if _twin(behind) else "auto"


def _tensors(result) -> tuple:
    return (result,) if isinstance(result, torch.Tensor) else tuple(result)


def _assert_same(first, second) -> None:
    for a, b in zip(_tensors(first), _tensors(second), strict=True):
        assert a.stride() == b.stride()
        assert torch.equal(a, b)


@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
@pytest.mark.parametrize(("op", "variant"), FORMS)
def test_opcheck(op, variant, layout, behind) -> None:
    if variant.endswith("into"):
        layout = "channels_last"  # what these forms are given
    operator, args = _call(behind, op, variant, layout=layout)
    results = torch.library.opcheck(operator, args)
    assert set(results.values()) == {"SUCCESS"}
    assert len(results) == 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["f16", "bf16"])
@pytest.mark.parametrize("op", OPERATORS)
def test_opcheck_16_bits(op, dtype, behind) -> None:
    operator, args = _call(behind, op, "", dtype=dtype)
    torch.library.opcheck(operator, args, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize(("op", "variant"), FORMS)
def test_raw_operator_refuses_an_input_that_requires_grad(op, variant, behind) -> None:
    operator, args = _call(behind, op, variant)
    inputs = len(OPERATORS[op].outputs) if variant.endswith("into") else 0
    args = list(args)
    floats = [
        i for i, a in enumerate(args) if isinstance(a, torch.Tensor) and a.is_floating_point() and i >= inputs
    ]
    if not floats:  # a byte image, and weights packed away
        floats = [0] if inputs else []
    for i in floats:
        given = [a.clone().requires_grad_() if j == i else a for j, a in enumerate(args)]
        with pytest.raises(RuntimeError, match=f"has no backward.*effnet_fast.ops.{op}"):
            operator(*given)
        with torch.no_grad():
            operator(*given)
        with torch.inference_mode():
            operator(*given)


def test_written_tensors_get_a_new_version(behind) -> None:
    operator, args = _call(behind, "depthwise_conv", "into")
    before = args[0]._version
    operator(*args)
    assert args[0]._version > before


@pytest.mark.parametrize("op", OPERATORS)
def test_compile_with_dynamic_shapes(op, behind) -> None:
    torch._dynamo.reset()
    # A size of 1, and two sizes that are equal, would be constants of the graph.
    operator, args = _call(behind, op, "", n=2, h=9, w=7)
    public = getattr(ops, op)

    def both(*args):
        names = [parameter.name for parameter in OPERATORS[op].parameters]
        return operator(*args), public(**dict(zip(names, args, strict=True)), backend=_asked(behind))

    compiled = torch.compile(both, fullgraph=True, dynamic=True, backend="aot_eager")
    # The pooled count is an int of the schema, hence a constant of the graph.
    larger_map = dict(h=9, w=7) if op == "squeeze_excite_gate" else dict(h=12, w=10)
    _, larger = _call(behind, op, "", n=3, **larger_map)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for given in (args, larger):
            for first, second in zip(compiled(*given), both(*given), strict=True):
                _assert_same(first, second)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("op", ["depthwise_conv_gate", "mbconv", "fused_mbconv"])
def test_compile_of_every_variant(op, variant, behind) -> None:
    torch._dynamo.reset()
    operator, args = _call(behind, op, variant)
    expected = [a.clone() if isinstance(a, torch.Tensor) else a for a in args]
    result = torch.compile(operator, fullgraph=True, backend="aot_eager")(*args)
    truth = operator(*expected)
    written = len(OPERATORS[op].outputs) if variant.endswith("into") else 0
    _assert_same(args[:written] if written else result, expected[:written] if written else truth)


def test_compile_with_inductor(behind) -> None:
    torch._dynamo.reset()
    args, backend = make_args("pointwise_conv", o=8, device=behind.device), _asked(behind)

    def block(x, weight, bias, activation, gate, residual):
        y = ops.pointwise_conv(x * 2, weight, bias, activation, gate, residual, backend=backend)
        return ops.head_pool(y + 1, weight, bias, activation, backend=backend) * 2

    torch.testing.assert_close(torch.compile(block, fullgraph=True)(*args), block(*args))


def test_compiled_training_uses_the_reference() -> None:
    torch._dynamo.reset()
    args = make_args("depthwise_conv")
    plain, compiled = ([a.clone().requires_grad_() for a in args[:3]] for _ in range(2))
    ops.depthwise_conv(*plain, *args[3:]).sum().backward()
    function = torch.compile(ops.depthwise_conv, fullgraph=True, backend="aot_eager")
    function(*compiled, *args[3:]).sum().backward()
    for a, b in zip(plain, compiled, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


class _Public(torch.nn.Module):
    """One operator as a module; tensors are the inputs, the rest is the module's."""

    def __init__(self, op: str, args: list, backend: str) -> None:
        super().__init__()
        self.op, self.backend = op, backend
        self.names = [parameter.name for parameter in OPERATORS[op].parameters]
        self.constants = {
            n: a for n, a in zip(self.names, args, strict=True) if not isinstance(a, torch.Tensor)
        }

    def forward(self, tensors: dict[str, torch.Tensor]):
        return getattr(ops, self.op)(**tensors, **self.constants, backend=self.backend)


@pytest.mark.parametrize("op", OPERATORS)
def test_export(op, behind) -> None:
    args = make_args(op, device=behind.device)
    module = _Public(op, args, _asked(behind))
    tensors = {n: a for n, a in zip(module.names, args, strict=True) if isinstance(a, torch.Tensor)}
    program = torch.export.export(module, (tensors,))
    _assert_same(program.module()(tensors), module(tensors))
    if behind.backend != "reference":
        called = [node.target for node in program.graph.nodes if node.op == "call_function"]
        ours = [target for target in called if "effnet_fast" in str(target)]
        assert ours == [overload(op + _twin(behind))], "one functional node"
