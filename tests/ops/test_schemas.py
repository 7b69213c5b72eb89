"""The derived schemas are the contract's, and every variant is in the dispatcher."""

from __future__ import annotations

import pytest
import torch

from effnet_fast.ops.schemas import OPERATORS, TWINS, VARIANTS, dispatcher_schemas

CONV = "int stride, int[4] padding, str activation"
DEPTHWISE = f"Tensor x, Tensor weight, Tensor? bias, {CONV}"
CONTRACT = {
    "depthwise_conv": f"({DEPTHWISE}) -> Tensor",
    "depthwise_conv_pool_into": f"(Tensor(a!) y, Tensor(b!) sums, {DEPTHWISE}) -> ()",
    "depthwise_conv_pool_packed": f"(Tensor x, Tensor packed, int kernel, {CONV}) -> (Tensor, Tensor)",
    "depthwise_conv_gate_packed_into": "(Tensor(a!) y, Tensor(b!) gates, Tensor x, Tensor packed, "
    f"int kernel, {CONV}, int squeeze, str se_activation, str gate) -> ()",
    "pointwise_conv": "(Tensor x, Tensor weight, Tensor? bias, str activation, "
    "Tensor? gate=None, Tensor? residual=None) -> Tensor",
    "pointwise_conv_packed": "(Tensor x, Tensor packed, int out_channels, str activation, "
    "Tensor? gate=None, Tensor? residual=None) -> Tensor",
    "dense_conv_packed": f"(Tensor x, Tensor packed, int out_channels, int kernel, {CONV}, "
    "Tensor? residual=None) -> Tensor",
    "stem_conv_packed": f"(Tensor image, Tensor packed, int out_channels, int kernel, {CONV}, "
    "Tensor? mean, Tensor? std, ScalarType dtype) -> Tensor",
    "squeeze_excite_gate_packed": "(Tensor sums, int count, Tensor packed, int squeeze, "
    "str activation, str gate) -> Tensor",
    "expand_depthwise_packed": "(Tensor x, Tensor packed, int expanded, str expand_activation, int kernel, "
    f"{CONV}) -> Tensor",
    "head_pool_packed": "(Tensor x, Tensor packed, int out_channels, str activation) -> Tensor",
    "mbconv_packed": "(Tensor x, Tensor packed, int expanded, int out_channels, int kernel, int squeeze, "
    f"{CONV}, str se_activation, str gate, bool residual) -> Tensor",
    "fused_mbconv_packed": "(Tensor x, Tensor packed, int expanded, int out_channels, int kernel, "
    f"{CONV}, bool residual) -> Tensor",
    "pack_fused_mbconv": "(Tensor w_expand, Tensor? b_expand, Tensor w_project, Tensor? b_project, "
    "str activation, str isa) -> Tensor",
    "stem_block_sums_packed": "(Tensor image, Tensor packed, int stem_channels, int kernel, "
    f"int depthwise_kernel, {CONV}, Tensor? mean, Tensor? std, ScalarType dtype) -> Tensor",
    "stem_block_packed": "(Tensor image, Tensor packed, int stem_channels, int out_channels, int kernel, "
    f"int depthwise_kernel, {CONV}, Tensor? gate, Tensor? mean, Tensor? std, ScalarType dtype) -> Tensor",
    "pack_depthwise_conv": "(Tensor weight, Tensor? bias, str activation, str isa) -> Tensor",
    "pack_squeeze_excite_gate": "(Tensor w1, Tensor? b1, Tensor w2, Tensor? b2, "
    "str activation, str isa) -> Tensor",
}


@pytest.mark.parametrize("name", CONTRACT)
def test_derived_schema(name) -> None:
    assert dispatcher_schemas()[name] == CONTRACT[name]


@pytest.mark.parametrize("name", [name for name in dispatcher_schemas() if not name.endswith(TWINS[1:])])
def test_a_twin_has_the_same_schema(name) -> None:
    assert TWINS == ("", "_triton")
    for twin in TWINS:
        assert dispatcher_schemas()[name + twin] == dispatcher_schemas()[name]


@pytest.mark.parametrize("name", dispatcher_schemas())
def test_dispatcher_has_every_variant(name) -> None:
    schema = getattr(torch.ops.effnet_fast, name).default._schema
    names = [argument.name for argument in schema.arguments]
    assert len(set(names)) == len(names)
    assert "out" not in names, "a keyword named out breaks torch.compile"
    mutated = [argument.name for argument in schema.arguments if argument.alias_info is not None]
    into = {
        row.dispatcher_name(variant, twin): row
        for row in OPERATORS.values() for variant in ("into", "packed_into") for twin in TWINS
    }  # fmt: skip
    assert mutated == (list(into[name].outputs) if name in into else [])
    assert not any(returned.alias_info for returned in schema.returns)


def test_every_letter_of_an_output_can_be_known() -> None:
    derived = {"oh", "ow", "t"}
    for row in OPERATORS.values():
        for variant in VARIANTS:
            names = {parameter.name for parameter in row.parameters_of(variant)}
            known = {x for name, spec in row.tensors.items() if name in names for x in spec.shape} | derived
            known |= {letter for name, letter in row.geometry.items() if name in names}
            assert {x for spec in row.outputs.values() for x in spec.shape} <= known
