"""Exact counts, against the published figures, PyTorch's own calls, and the engine's planner."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from effnet_fast.inference import BlockForm, fold, network_layers, plan_network
from effnet_fast.models import EfficientNet, model_config
from effnet_fast.models.config import MBConvConfig
from effnet_fast.models.presets import scaled_config
from effnet_fast.scaling import count, model_for, official, scaled_model_config

# Parameters, billions of multiply-adds, and (B0..B7) MB an image of float16 activations on three plans, gates
# and sums aside, as counted by hand.
PUBLISHED = {
    "b0": (5_288_548, 0.3858, (93.94, 27.43, 13.88)),
    "b1": (7_794_184, 0.6868, (155.07, 44.85, 24.39)),
    "b2": (9_109_994, 0.9936, (197.42, 56.93, 30.90)),
    "b3": (12_233_232, 1.8271, (339.52, 98.23, 53.01)),
    "b4": (19_341_616, 4.3938, (711.98, 204.16, 111.63)),
    "b5": (30_389_784, 10.2664, (1436.40, 410.11, 229.58)),
    "b6": (43_040_704, 19.0676, (2435.90, 695.31, 390.09)),
    "b7": (66_347_960, 37.7459, (4246.95, 1208.27, 689.15)),
    "b8": (87_413_142, 62.5975, None),
    "l2": (480_309_308, 475.7037, None),
}
SOME = (
    "efficientnet_b0",
    "tf_efficientnet_b1",
    "tf_efficientnet_b4",
    "efficientnet_b7",
    "efficientnet_lite4",
    "mobilenetv2_100",
    "mobilenetv2_120d",
    "tf_efficientnetv2_b0",
    "efficientnetv2_s",
)


@pytest.mark.parametrize("variant", PUBLISHED)
def test_official_coefficients_give_the_published_counts(variant):
    parameters, billions, megabytes = PUBLISHED[variant]
    counts = count(scaled_config(variant, official(variant)))
    assert counts.parameters == parameters
    assert round(counts.macs / 1e9, 4) == billions
    assert counts.resolution == official(variant).resolution
    if megabytes is not None:
        for plan, expected in zip(("eager", "three_kernels", "expansion_fused"), megabytes, strict=True):
            # Gates and pooled sums, which the hand count leaves out, are at most 1.5%, and only ever more.
            assert 1 <= counts.activation_bytes[plan] / 1e6 / expected + 1e-4 < 1.016


class Traffic(TorchDispatchMode):
    """Bytes of all tensors, but a model's own, that PyTorch's kernels read and write."""

    def __init__(self, model):
        super().__init__()
        self.own = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
        self.views = []  # kept, so that no other tensor gets the id of one
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function.overloadpacket in (torch.ops.aten.t, torch.ops.aten.empty):
            # The classifier's weight transposed, the statistics of a batch norm in evaluation: no traffic.
            self.own.add(id(result))
            self.views.append(result)
            return result
        # Batch norm returns two empty statistics as well.
        written = result if isinstance(result, torch.Tensor) else result[0]
        read = [arg for arg in args if isinstance(arg, torch.Tensor) and id(arg) not in self.own]
        self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in (*read, written))
        return result


def meta_model(config) -> EfficientNet:
    with torch.device("meta"):
        return EfficientNet(config).eval().requires_grad_(False)


@pytest.mark.parametrize("name", SOME)
def test_eager_bytes_are_those_of_pytorchs_calls(name):
    model = meta_model(model_config(name))
    side = model.config.resolution
    image = torch.empty(1, 3, side, side, device="meta")
    with torch.no_grad(), Traffic(model) as traffic:
        model(image)
    assert count(model.config, dtype=torch.float32).activation_bytes["eager"] == traffic.bytes


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("name", SOME)
def test_fused_bytes_are_those_of_the_engines_plan(name, dtype):
    network = fold(meta_model(model_config(name)))
    for side in (None, 97):
        counts = count(model_config(name), side, dtype=dtype)
        for form in (BlockForm.THREE_KERNELS, BlockForm.EXPANSION_FUSED):
            layers = network_layers(network, (counts.resolution,) * 2, forms=form)
            plan = plan_network(layers, batch=1, dtype=dtype)
            assert counts.activation_bytes[form.name.lower()] == sum(
                plan.step_bytes(layer) for layer in plan.layers
            )


@pytest.mark.parametrize("phi", [-6, 0.3, 2.5])
@pytest.mark.parametrize("base", ["efficientnet", "efficientnetv2", "mobilenetv2"])
def test_counts_of_any_phi_are_those_of_the_built_model(base, phi):
    with torch.device("meta"):
        model = model_for(phi, base=base, num_classes=17)
    counts = count(model.config)
    assert counts.parameters == sum(parameter.numel() for parameter in model.parameters())
    side = counts.resolution
    assert model.eval()(torch.empty(2, 3, side, side, device="meta")).shape == (2, 17)


def test_bad_input_is_named():
    config = scaled_model_config(0)
    for resolution in (31, 8):
        with pytest.raises(
            ValueError, match=f"resolution must be at least the network's stride of 32, got {resolution}"
        ):
            count(config, resolution)
    with pytest.raises(ValueError, match="resolution must be at least 1"):
        count(config, 0)
    with pytest.raises(TypeError, match="resolution must be an integer"):
        count(config, 224.0)
    with pytest.raises(TypeError, match="config must be an EfficientNetConfig"):
        count("efficientnet_b0")
    with pytest.raises(TypeError, match="dtype must be a floating point"):
        count(config, dtype=torch.uint8)
    rows = (MBConvConfig(expand=1, kernel=3, stride=2, channels=16, layers=1),)
    small = scaled_model_config(0, base_stages=rows, base_resolution=8)
    assert count(small, 4).resolution == 4  # a stride of 4
    with pytest.raises(ValueError, match="stride of 4, got 3"):
        count(small, 3)
