"""Which backend serves what: every layer of the family runs on a kernel where the library is loaded."""

from __future__ import annotations

import importlib

import torch

from effnet_fast import backends, native, triton_kernels
from effnet_fast.inference import BlockForm, fold, network_layers
from effnet_fast.models import create_model, list_models
from effnet_fast.testing import LOW_DTYPES


def test_the_cpu_library_is_built_and_loaded():
    assert native.available("cpu"), native.reason("cpu")
    assert native.cpu_isa() in native.cpu_isas()
    assert native.cpu_isas()[-1] == "portable"


def test_every_triton_operator_has_its_module():
    for name in triton_kernels.OPERATORS:
        module = importlib.import_module(f"effnet_fast.triton_kernels.{name}")
        assert callable(module.launches)


def test_every_layer_of_the_family_has_a_kernel():
    """On the CPU one of its own, or its parts' for a whole block; of Triton its own, or its parts', for each
    storage type.
    """
    place = backends.device_type(backends.Backend.TRITON)
    composed = {
        operator
        for operator in ("mbconv", "fused_mbconv", "stem_block_sums", "stem_block")
        if all(
            backends.supports(operator, "cpu", device_type="cpu", dtype=dtype) is None for dtype in LOW_DTYPES
        )
    }
    missing = []
    # The twins with TensorFlow's padding are the same layers.
    for name in (name for name in list_models() if not name.startswith("tf_")):
        with torch.device("meta"):
            network = fold(create_model(name).eval())
        for form in BlockForm:
            for layer in network_layers(network, (64, 64), forms=form):
                own = backends.has_kernel(f"{layer.operator}_packed_into", backends.Backend.CPU)
                if not (own or layer.operator in composed):
                    missing.append((name, layer.name, "cpu", layer.operator))
                for dtype in LOW_DTYPES:
                    reason = backends.supports(layer.operator, "triton", device_type=place, dtype=dtype)
                    if reason is not None:
                        missing.append((name, layer.name, "triton", reason))
    assert len(list_models()) == 53
    assert not missing
