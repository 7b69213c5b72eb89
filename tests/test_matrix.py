"""Which backend serves what: every layer of the family runs on a kernel where the library is loaded."""

from __future__ import annotations

import torch

from effnet_fast import backends, native
from effnet_fast.inference import fold, network_layers
from effnet_fast.models import create_model, list_models


def test_the_cpu_library_is_built_and_loaded():
    assert native.available("cpu"), native.reason("cpu")
    assert native.cpu_isa() in native.cpu_isas()
    assert native.cpu_isas()[-1] == "portable"


def test_every_layer_of_the_family_has_a_cpu_kernel():
    missing = []
    for name in list_models():
        with torch.device("meta"):
            model = create_model(name).eval()
        for fused in (False, True):
            for layer in network_layers(fold(model), (64, 64), fuse_expansion=fused):
                if not backends.has_kernel(f"{layer.operator}_packed_into", backends.Backend.CPU):
                    missing.append((name, layer.name, layer.operator))
    assert len(list_models()) == 28
    assert not missing
