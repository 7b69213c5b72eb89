"""Every dispatcher operator under opcheck, torch.compile and torch.export, and its refusal of gradients."""

from __future__ import annotations

import pytest
import torch

from effnet_fast import ops
from effnet_fast.ops.geometry import allocate
from effnet_fast.ops.schemas import OPERATORS, VARIANTS
from effnet_fast.ops.validation import check
from effnet_fast.testing import Target, make_args

FORMS = [(op, variant) for op in OPERATORS for variant in VARIANTS]


def _backend(op: str) -> str:
    return str(ops.dispatch.backends.resolve(op, "auto", device_type="cpu", dtype=torch.float32))


def _call(op: str, variant: str, **options) -> tuple:
    """The dispatcher operator of `variant`, with arguments for it."""
    row = OPERATORS[op]
    args = make_args(op, **options)
    outputs = allocate(row, *check(row, "", args)) if variant.endswith("into") else ()
    if variant.startswith("packed"):
        args = Target(_backend(op), packed=True).pack_arguments(op, args)
    return getattr(torch.ops.effnet_fast, row.dispatcher_name(variant)).default, (*outputs, *args)


def _tensors(result) -> tuple:
    return (result,) if isinstance(result, torch.Tensor) else tuple(result)


def _assert_same(first, second) -> None:
    for a, b in zip(_tensors(first), _tensors(second), strict=True):
        assert a.stride() == b.stride()
        assert torch.equal(a, b)


@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
@pytest.mark.parametrize(("op", "variant"), FORMS)
def test_opcheck(op, variant, layout) -> None:
    if variant.endswith("into"):
        layout = "channels_last"  # what these forms are given
    operator, args = _call(op, variant, layout=layout)
    results = torch.library.opcheck(operator, args)
    assert set(results.values()) == {"SUCCESS"}
    assert len(results) == 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["f16", "bf16"])
@pytest.mark.parametrize("op", OPERATORS)
def test_opcheck_16_bits(op, dtype) -> None:
    operator, args = _call(op, "", dtype=dtype)
    torch.library.opcheck(operator, args, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize(("op", "variant"), FORMS)
def test_raw_operator_refuses_an_input_that_requires_grad(op, variant) -> None:
    operator, args = _call(op, variant)
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


def test_written_tensors_get_a_new_version() -> None:
    operator, args = _call("depthwise_conv", "into")
    before = args[0]._version
    operator(*args)
    assert args[0]._version > before


@pytest.mark.parametrize("op", OPERATORS)
def test_compile_with_dynamic_shapes(op) -> None:
    torch._dynamo.reset()
    operator, args = _call(op, "")
    public = getattr(ops, op)

    def both(*args):
        names = [parameter.name for parameter in OPERATORS[op].parameters]
        return operator(*args), public(**dict(zip(names, args, strict=True)))

    compiled = torch.compile(both, fullgraph=True, dynamic=True, backend="aot_eager")
    # The pooled count is an int of the schema, hence a constant of the graph.
    larger_map = {} if op == "squeeze_excite_gate" else dict(h=12, w=10)
    _, larger = _call(op, "", n=3, **larger_map)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for given in (args, larger):
            for first, second in zip(compiled(*given), both(*given), strict=True):
                _assert_same(first, second)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("op", ["depthwise_conv_gate", "mbconv"])
def test_compile_of_every_variant(op, variant) -> None:
    torch._dynamo.reset()
    operator, args = _call(op, variant)
    expected = [a.clone() if isinstance(a, torch.Tensor) else a for a in args]
    result = torch.compile(operator, fullgraph=True, backend="aot_eager")(*args)
    truth = operator(*expected)
    written = len(OPERATORS[op].outputs) if variant.endswith("into") else 0
    _assert_same(args[:written] if written else result, expected[:written] if written else truth)


def test_compile_with_inductor() -> None:
    torch._dynamo.reset()
    args = make_args("pointwise_conv", o=8)

    def block(x, weight, bias, activation, gate, residual):
        y = ops.pointwise_conv(x * 2, weight, bias, activation, gate, residual)
        return ops.head_pool(y + 1, weight, bias, activation) * 2

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

    def __init__(self, op: str, args: list) -> None:
        super().__init__()
        self.op = op
        self.names = [parameter.name for parameter in OPERATORS[op].parameters]
        self.constants = {
            n: a for n, a in zip(self.names, args, strict=True) if not isinstance(a, torch.Tensor)
        }

    def forward(self, tensors: dict[str, torch.Tensor]):
        return getattr(ops, self.op)(**tensors, **self.constants)


@pytest.mark.parametrize("op", OPERATORS)
def test_export(op) -> None:
    args = make_args(op)
    module = _Public(op, args)
    tensors = {n: a for n, a in zip(module.names, args, strict=True) if isinstance(a, torch.Tensor)}
    program = torch.export.export(module, (tensors,))
    _assert_same(program.module()(tensors), module(tensors))
    if _backend(op) != "reference":
        targets = [node.target for node in program.graph.nodes if node.op == "call_function"]
        ours = [target for target in targets if "effnet_fast" in str(target)]
        assert ours == [getattr(torch.ops.effnet_fast, op).default], "one functional node"
