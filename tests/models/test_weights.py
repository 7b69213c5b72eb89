"""load_weights: every naming, complete or not at all."""

from __future__ import annotations

import warnings

import pytest
import safetensors.torch
import torch

from effnet_fast.models import WeightsError, convert_state_dict, create_model, load_weights
from effnet_fast.models.naming import NAMINGS

NAME = "efficientnet_b0"


@pytest.fixture(scope="module")
def b0(random_model):
    return random_model(NAME)


@pytest.fixture
def state(b0):
    """A complete state dict of B0, our names; its tensors are everyone's."""
    return b0.state_dict()


@pytest.fixture
def model():
    return create_model(NAME)


def snapshot(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def assert_equal_states(got, expected):
    assert list(got) == list(expected)
    for key, value in expected.items():
        assert got[key].dtype == value.dtype, key
        assert torch.equal(got[key], value), key


def assert_refused(model, weights, message, **arguments):
    """The error says why, and the model is what it was."""
    before = snapshot(model)
    with pytest.raises(WeightsError, match=message):
        load_weights(model, weights, **arguments)
    assert_equal_states(model.state_dict(), before)


@pytest.mark.parametrize("library", NAMINGS)
@pytest.mark.parametrize("form", ["state dict", "pth", "safetensors", "wrapped"])
@pytest.mark.filterwarnings("ignore:.*efficientnet_pytorch uses padding")
def test_every_naming_and_form(tmp_path, library, form, state, model):
    weights = convert_state_dict(state, to=library)
    path = tmp_path / f"weights.{form}"
    if form == "safetensors":
        safetensors.torch.save_file(weights, path)
    elif form == "pth":
        torch.save(weights, path)
    elif form == "wrapped":
        torch.save({"epoch": 1, "state_dict": {f"module.{key}": v for key, v in weights.items()}}, path)
    report = load_weights(model, weights if form == "state dict" else path)
    assert_equal_states(model.state_dict(), state)
    assert report.library == library
    assert report.classifier_loaded
    assert str(report.origin).endswith("state dict" if form == "state dict" else path.name)


def test_create_model_loads(tmp_path, state):
    torch.save(convert_state_dict(state, to="timm"), tmp_path / "weights.pth")
    for weights in (tmp_path / "weights.pth", str(tmp_path / "weights.pth"), state):
        assert_equal_states(create_model(NAME, weights=weights).state_dict(), state)


def test_loading_shares_no_memory_with_the_given_tensors(state, model):
    state["stem.conv.weight"] = given = state["stem.conv.weight"].clone()
    load_weights(model, state)
    given.zero_()
    assert model.stem.conv.weight.abs().sum() > 0


def test_peers_own_checkpoints_load(peer_model, random_model):
    """Real objects of the libraries, not our conversion of our own names."""
    for library, name in [
        *(("timm", NAME), ("torchvision", NAME), ("efficientnet_pytorch", "tf_" + NAME)),
        *(("timm", "efficientnetv2_s"), ("timm", "mobilenetv2_110d"), ("torchvision", "mobilenetv2_050")),
    ]:
        theirs = peer_model(library, name).to_empty(device="cpu")
        theirs.load_state_dict(convert_state_dict(random_model(name).state_dict(), to=library))
        ours = create_model(name, weights=theirs.state_dict())
        assert_equal_states(ours.state_dict(), random_model(name).state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_cast(dtype, state, model):
    stored = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    load_weights(model, stored)
    expected = {key: value.to(state[key].dtype) for key, value in stored.items()}
    assert_equal_states(model.state_dict(), expected)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_model_keeps_its_own_precision_and_format(state):
    model = create_model(NAME).bfloat16().to(memory_format=torch.channels_last)
    load_weights(model, state)
    assert model.stem.conv.weight.dtype == torch.bfloat16
    assert torch.equal(model.stem.conv.weight, state["stem.conv.weight"].bfloat16())


def test_batch_counters_may_be_missing(state, model):
    weights = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    load_weights(model, weights)
    loaded = model.state_dict()
    assert all(torch.equal(loaded[key], weights[key]) for key in weights)
    assert loaded["stem.norm.num_batches_tracked"] == 0


def test_other_number_of_classes_is_refused_unless_asked(state):
    model = create_model(NAME, num_classes=10)
    assert_refused(model, state, "1000 classes and the model has num_classes=10; .*adapt_classifier=True")
    with pytest.raises(WeightsError, match="1000 classes and the model has num_classes=10"):
        create_model(NAME, num_classes=10, weights=state)

    own = model.classifier.weight.clone()
    report = load_weights(model, convert_state_dict(state, to="torchvision"), adapt_classifier=True)
    assert not report.classifier_loaded
    assert torch.equal(model.classifier.weight, own)
    assert torch.equal(model.head.conv.weight, state["head.conv.weight"])


def test_adapting_still_loads_a_classifier_that_fits(state, model):
    assert load_weights(model, state, adapt_classifier=True).classifier_loaded
    assert_equal_states(model.state_dict(), state)


def test_weights_without_classifier(state, model):
    headless = {key: value for key, value in state.items() if not key.startswith("classifier.")}
    assert_refused(model, headless, "has no classifier; .*adapt_classifier=True")
    assert not load_weights(model, headless, adapt_classifier=True).classifier_loaded


def test_one_logit_classifier(random_model):
    weights = random_model(NAME, num_classes=1).state_dict()
    assert_equal_states(create_model(NAME, num_classes=1, weights=weights).state_dict(), weights)


def test_other_number_of_input_channels_is_refused(state):
    model = create_model(NAME, in_chans=1)
    message = "expects images of 3 channels and the model has in_chans=1"
    assert_refused(model, state, message)
    assert_refused(create_model(NAME, in_chans=1, num_classes=5), state, message, adapt_classifier=True)


@pytest.mark.parametrize("library", ["effnet_fast", "timm", "torchvision", "efficientnet_pytorch"])
def test_another_architecture_is_refused_and_named(library, model):
    with torch.device("meta"):
        larger = create_model("efficientnet_b2").state_dict()
    weights = convert_state_dict(larger, to=library)
    assert_refused(
        model, weights, rf"\({library} names\) does not fit {NAME}: it has the shapes of efficientnet_b2;"
    )


def test_lite_and_full_are_told_apart(state, model, random_model):
    lite = random_model("efficientnet_lite0").state_dict()
    assert_refused(model, lite, r"the shapes of efficientnet_lite0; missing .*squeeze_excite")
    assert_refused(
        create_model("efficientnet_lite0"), state, r"the shapes of efficientnet_b0; unknown .*squeeze_excite"
    )
    torchvisions = convert_state_dict(state, to="torchvision")
    assert_refused(
        create_model("efficientnet_lite0"), torchvisions, "torchvision has no EfficientNet without"
    )


@pytest.mark.parametrize("library", ["effnet_fast", "timm", "torchvision"])
@pytest.mark.parametrize("other", ["efficientnetv2_s", "mobilenetv2_075"])
def test_v2_and_mobilenetv2_are_refused_and_named(library, other, model):
    with torch.device("meta"):
        weights = convert_state_dict(create_model(other).state_dict(), to=library)
    assert_refused(model, weights, rf"does not fit {NAME}: it has the shapes of {other}; missing")


@pytest.mark.parametrize("name", ["efficientnetv2_b0", "mobilenetv2_035"])
def test_b0_is_refused_by_other_families(name, state):
    weights = convert_state_dict(state, to="torchvision")
    assert_refused(create_model(name), weights, f"does not fit {name}: it has the shapes of {NAME}; missing")


def test_libraries_without_the_model_are_named(state):
    weights = convert_state_dict(state, to="efficientnet_pytorch")
    for name, family in (("efficientnetv2_b0", "EfficientNetV2"), ("mobilenetv2_035", "MobileNetV2")):
        assert_refused(create_model(name), weights, f"efficientnet_pytorch has no {family}")


def test_same_names_with_other_widths_are_refused(model, state):
    state["stages.3.1.expand.conv.weight"] = torch.zeros(480, 81, 1, 1)
    shapes = r"\[480, 81, 1, 1\], the model has \[480, 80, 1, 1\]"
    message = rf"1 of another shape, first stages\.3\.1\.expand\.conv\.weight: {shapes}"
    assert_refused(model, state, message)


def test_another_network_is_refused(model):
    resnet = {"conv1.weight": torch.zeros(64, 3, 7, 7), "layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1)}
    assert_refused(
        model, resnet, r"not an EfficientNet: its names \(conv1.weight, layer1.0.conv1.weight\) are none"
    )


def test_missing_and_unknown_names_are_listed(model, state):
    weights = convert_state_dict(state, to="timm")
    weights["blocks.9.0.conv_pw.weight"] = weights.pop("blocks.3.1.bn2.running_var")
    message = r"missing blocks\.3\.1\.bn2\.running_var; unknown blocks\.9\.0\.conv_pw\.weight"
    assert_refused(model, weights, message)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("stem.conv.weight", torch.full((32, 3, 3, 3), float("nan")), "values that are not finite"),
        ("classifier.bias", torch.full((1000,), 1e300, dtype=torch.float64), "not finite .in torch.float32"),
        ("head.norm.running_var", torch.full((1280,), -1.0), "negative variances"),
        (
            "head.norm.weight",
            torch.ones(1280, dtype=torch.int8),
            "dense floating-point tensor, got torch.int8",
        ),
        ("head.norm.weight", torch.ones(1280).to_sparse(), "dense floating-point tensor, got .*sparse"),
        ("head.norm.weight", torch.empty(1280, device="meta"), "is on the meta device"),
        ("head.norm.num_batches_tracked", torch.ones(3), r"must hold one number, got shape \[3\]"),
    ],
)
def test_unusable_values_are_refused(key, value, message, model, state):
    assert_refused(model, {**state, key: value}, f"{key} .*{message}")


def test_bad_arguments(model, state):
    with pytest.raises(TypeError, match="weights must be a path or a state dict, got EfficientNet; pass its"):
        load_weights(model, model)
    with pytest.raises(TypeError, match="model must be an effnet_fast EfficientNet, got Linear"):
        load_weights(torch.nn.Linear(2, 2), state)
    with torch.device("meta"):
        empty = create_model(NAME)
    with pytest.raises(WeightsError, match="model is on the meta device"):
        load_weights(empty, state)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth does not exist"):
        create_model(NAME, weights="nowhere.pth")


@pytest.mark.parametrize(
    ("name", "arguments", "library", "warns"),
    [
        ("efficientnet_b0", {}, "efficientnet_pytorch", r"use create_model\('tf_efficientnet_b0'\)"),
        ("tf_efficientnet_b0", {}, "efficientnet_pytorch", None),
        ("tf_efficientnet_b0", {}, "torchvision", r"use create_model\('efficientnet_b0'\)"),
        ("efficientnet_b0", {}, "torchvision", None),
        (
            "efficientnet_b5",
            {},
            "torchvision",
            r"use create_model\('tf_efficientnet_b5', padding='symmetric'\)",
        ),
        ("tf_efficientnet_b5", {"padding": "symmetric"}, "torchvision", None),
        (
            "efficientnetv2_s",
            {},
            "torchvision",
            r"use create_model\('tf_efficientnetv2_s', padding='symmetric'\)",
        ),
        ("tf_efficientnetv2_s", {"padding": "symmetric"}, "torchvision", None),
        ("mobilenetv2_035", {}, "torchvision", None),
        ("mobilenetv2_035", {"padding": "same"}, "torchvision", r"use create_model\('mobilenetv2_035'\)"),
        ("tf_efficientnet_b0", {}, "timm", None),
        ("efficientnetv2_b0", {}, "timm", r"use create_model\('tf_efficientnetv2_b0'\)"),
        ("tf_efficientnetv2_b0", {}, "timm", None),
        ("efficientnet_b0", {}, "effnet_fast", None),
    ],
)
def test_warns_where_the_library_trains_with_other_padding_or_epsilon(name, arguments, library, warns):
    model = create_model(name, **arguments)
    weights = convert_state_dict(model.state_dict(), to=library)
    if warns:
        with pytest.warns(UserWarning, match=warns):
            load_weights(model, weights)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            load_weights(model, weights)
