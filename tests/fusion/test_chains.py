"""Chains of modules that a network calls in turn: stems, heads, MNASNet's flat Sequential."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import efficientnet_pytorch
import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from effnet_fast.fusion import parts
from effnet_fast.fusion.readers import CHAINS
from effnet_fast.fusion.spec import Block
from tests.fusion.blocks import OtherSequential, interpret, randomise


def _mobilenetv4() -> nn.Module:
    return timm.create_model("mobilenetv4_conv_small_035", num_classes=3)


def _lukemelas_network(image: int | None) -> nn.Module:
    return efficientnet_pytorch.EfficientNet.from_name("efficientnet-b0", image_size=image, num_classes=3)


def _mobilenetv3(**options) -> nn.Module:
    return timm.create_model("tf_mobilenetv3_small_minimal_100", **options)


LUKEMELAS = ["_conv_stem _bn0 _swish", "_conv_head _bn1 _swish"]
# A network and its chains.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "timm": (lambda: timm.create_model("test_efficientnet"), ["conv_stem bn1", "conv_head bn2"]),
    "timm features": (lambda: timm.create_model("test_efficientnet", features_only=True), ["conv_stem bn1"]),
    "mobilenetv3": (_mobilenetv3, ["conv_stem bn1", "conv_head norm_head act2"]),
    "mobilenetv3 features": (partial(_mobilenetv3, features_only=True), ["conv_stem bn1 act1"]),
    "mobilenetv4": (_mobilenetv4, ["conv_stem bn1", "conv_head norm_head act2"]),
    "lukemelas": (partial(_lukemelas_network, None), LUKEMELAS),
    "lukemelas static": (partial(_lukemelas_network, 64), LUKEMELAS),
    "mnasnet": (
        torchvision.models.mnasnet0_5,
        [
            "layers.0 layers.1 layers.2",
            "layers.3 layers.4 layers.5",
            "layers.6 layers.7",
            "layers.14 layers.15 layers.16",
        ],
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_chains_are_what_the_network_calls_in_turn(name) -> None:
    """Between a convolution and the last of its followers, the network calls nothing else."""
    torch.manual_seed(0)
    make, chained = NETWORKS[name]
    network = randomise(make())
    chains = CHAINS[parts.class_name(network)](network)
    assert [" ".join((chain.lead, *chain.followers)) for chain in chains.found] == chained
    assert chains.refused == {}
    calls: list[tuple[str, Tensor, Tensor]] = []
    names = {name for chain in chains.found for name in (chain.lead, *chain.followers)}
    for path, module in network.named_modules():
        # Of a norm's own children (its activation) the norm tells.
        if path in names or not (list(module.children()) or path.rpartition(".")[0] in names):
            module.register_forward_hook(
                lambda _, inputs, output, path=path: calls.append((path, inputs[0].clone(), output.clone()))
            )
    network(torch.randn(1, 3, 75, 69, dtype=torch.float64))
    for chain in chains.found:
        at = [path for path, _, _ in calls].index(chain.lead)
        turn = calls[at : at + 1 + len(chain.followers)]
        assert [path for path, _, _ in turn] == [chain.lead, *chain.followers]
        found = interpret(Block((chain.conv,)), turn[0][1])
        torch.testing.assert_close(found, turn[-1][2], rtol=1e-10, atol=1e-10)


def _chains(network: nn.Module):
    return CHAINS[parts.class_name(network)](network)


def test_a_network_may_be_cut() -> None:
    network = timm.create_model("test_efficientnet")
    network.prune_intermediate_layers(2)
    chains = _chains(network)
    assert ([chain.lead for chain in chains.found], chains.refused) == (["conv_stem"], {})
    network = torchvision.models.mnasnet0_5()
    network.layers = network.layers[:8]
    assert [chain.lead for chain in _chains(network).found] == ["layers.0", "layers.3", "layers.6"]


def test_chains_that_are_changed_are_refused_with_the_reason() -> None:
    network = timm.create_model("test_efficientnet")
    network.conv_head.forward = lambda x: x
    network.bn1 = nn.GroupNorm(1, network.conv_stem.out_channels)
    assert _chains(network).refused == {
        "conv_stem": "GroupNorm is no batch norm that can be folded",
        "conv_head": "forward of a Conv2d was replaced on the object",
    }
    network = _mobilenetv3()
    network.norm_head.forward = torch.relu
    assert _chains(network).refused == {"conv_head": "forward of a Identity was replaced on the object"}
    network = timm.create_model("test_efficientnet")
    network.forward = lambda x: x
    assert not _chains(network).found
    network = timm.create_model("test_efficientnet")
    network.blocks[0][0].bn1 = network.bn1
    assert _chains(network).refused == {"conv_stem": "bn1 is used elsewhere as well"}
    network = torchvision.models.mnasnet0_5()
    network.layers = OtherSequential(*network.layers)
    assert set(_chains(network).refused.values()) == {"layers is a OtherSequential"}


def test_an_activation_of_two_chains_is_taken_from_both_or_from_none() -> None:
    """efficientnet_pytorch has one swish for stem and head."""
    network = _lukemelas_network(None)
    network._bn1 = nn.GroupNorm(1, 1280)
    assert _chains(network).found == ()
    assert _chains(network).refused["_conv_stem"] == "_swish also follows _conv_head, which stays as it is"
    # The network still calls its swish behind a head that was taken out.
    network._conv_head = network._bn1 = nn.Identity()
    assert list(_chains(network).refused) == ["_conv_stem"]
    network._swish = network._blocks[0]._swish
    assert _chains(network).refused["_conv_stem"] == "_swish is used elsewhere as well"
