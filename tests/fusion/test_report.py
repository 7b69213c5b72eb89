"""The report's rows cover the model, its bytes are those of the shapes, and it changes nothing."""

from __future__ import annotations

import copy

import pytest
import timm
import torchvision
from efficientnet_pytorch import EfficientNet
from timm.layers import GroupNormAct
from torch import nn

import effnet_fast
from effnet_fast import backends
from effnet_fast.fusion.report import CAN_BE_FUSED, FUSED, LEFT_ALONE
from effnet_fast.nn import ConvNormAct, MBConv


@pytest.fixture(scope="module")
def lite0() -> nn.Module:
    return timm.create_model("tf_efficientnet_lite0").eval()


def block(**options) -> nn.Module:
    return MBConv(8, 8, expanded_channels=32, **options).eval()


def test_a_model_before_and_after_fusing(lite0):
    before, after = effnet_fast.fusion_report(lite0), effnet_fast.fusion_report(effnet_fast.fuse(lite0))
    assert {row.status for row in before.rows} == {CAN_BE_FUSED}
    assert {row.status for row in after.rows} == {FUSED}
    assert [row.path for row in before.rows] == [row.path for row in after.rows]
    assert before.image_size == (224, 224)
    assert before.bytes_before == after.bytes_before
    assert before.bytes_after == after.bytes_after
    stem = next(row for row in after.rows if row.path == "conv_stem")
    # 3 x 224 x 224 copied to 225 x 225 for TensorFlow's padding and read there; convolution, norm, activation
    image, padded, y = 3 * 224 * 224, 3 * 225 * 225, 32 * 112 * 112
    assert stem.bytes_before == 4 * (image + 2 * padded + 5 * y)
    assert stem.bytes_after == 4 * (image + y)
    assert stem.operators == ("stem_conv",)
    paths = dict(lite0.named_modules())
    assert all(row.path in paths and type(paths[row.path]).__name__ == row.name for row in before.rows)


def test_every_convolution_is_in_one_row():
    model = timm.create_model("mixnet_s").eval()
    report = effnet_fast.fusion_report(effnet_fast.fuse(model))
    covered = []
    fused = {row.path for row in report.fused}
    for row in report.rows:
        within = [
            module
            for name, module in model.get_submodule(row.path).named_modules(prefix=row.path)
            if isinstance(module, nn.Conv2d)
            # a part that is left alone lists what is fused inside of it by itself
            and (row.status == FUSED or not any(name == p or name.startswith(f"{p}.") for p in fused))
        ]
        covered += within
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert sorted(map(id, covered)) == sorted(map(id, convs))
    assert any("MixedConv2d" in row.reason for row in report.left_alone)
    assert report.fused


def test_bytes_of_a_block_by_hand():
    size = 10
    small, wide = 8 * size * size, 32 * size * size
    report = effnet_fast.fusion_report(block(squeeze_channels=4), image_size=size)
    (row,) = report.rows
    assert (row.path, row.name, row.operators) == ("", "MBConv", ("mbconv",))
    # expansion and depthwise convolution with norm and activation, mean and product, projection, sum
    eager = (small + 5 * wide) + (wide + 5 * wide) + 3 * wide + (wide + 3 * small) + 3 * small
    assert row.bytes_before == 4 * eager
    assert row.bytes_after == 4 * 2 * small  # one kernel, as there is one on a CPU
    assert (report.bytes_before, report.bytes_after) == (row.bytes_before, row.bytes_after)


def test_a_composed_block_moves_its_maps_in_between(monkeypatch):
    monkeypatch.setattr(backends, "has_kernel", lambda name, backend: name != "mbconv_into")
    (row,) = effnet_fast.fusion_report(block(), image_size=10).rows
    small, wide = 800, 3200
    assert row.bytes_after == 4 * ((small + wide) + 2 * wide + (wide + small) + small)


def test_bytes_without_a_residual_operator_and_in_half():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = ConvNormAct(8, 16, 3, stride=2, activation="relu")
            self.again = self.conv

        def forward(self, x):
            return self.conv(x) + self.again(x)

    report = effnet_fast.fusion_report(Pair().eval().half(), image_size=(9, 12))
    (row,) = report.rows
    assert report.image_size == (9, 12)
    x, y = 8 * 9 * 12, 16 * 5 * 6
    assert row.bytes_before == 2 * 2 * (x + 5 * y)  # called twice, two bytes a value
    assert row.bytes_after == 2 * 2 * (x + y)


def test_nothing_is_changed_and_no_hook_is_called(lite0):
    called = []
    handle = lite0.blocks[0].register_forward_hook(lambda *_: called.append(1))
    fused = effnet_fast.fuse(lite0)
    before = {
        name: (id(tensor), tensor._version) for name, tensor in fused.state_dict(keep_vars=True).items()
    }
    classes = [type(module) for module in fused.modules()]
    effnet_fast.fusion_report(fused)
    handle.remove()
    assert called == []
    assert classes == [type(module) for module in fused.modules()]
    assert before == _tensors(fused)


def _tensors(model: nn.Module) -> dict[str, tuple[int, int]]:
    state = model.state_dict(keep_vars=True)
    return {name: (id(tensor), tensor._version) for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda: timm.create_model("tinynet_e"), (106, 106)),
        (lambda: torchvision.models.mnasnet0_5(), (224, 224)),
        (lambda: EfficientNet.from_name("efficientnet-b0", image_size=64), (64, 64)),
        (lambda: effnet_fast.create_model("efficientnet_b1"), (240, 240)),
        (lambda: timm.create_model("mobilenetv4_conv_small_035", features_only=True), (224, 224)),
        (lambda: timm.create_model("lcnet_035", in_chans=1), (224, 224)),
    ],
)
def test_the_image_size_is_the_models_own(make, size):
    report = effnet_fast.fusion_report(make().eval())
    assert report.note == ""
    assert report.image_size == size
    assert 0 < report.bytes_after < report.bytes_before


def test_training_and_64_bit_models_have_a_report():
    model = block().train()
    assert effnet_fast.fusion_report(model, image_size=8).can_be_fused
    assert model.training
    (row,) = effnet_fast.fusion_report(block().double(), image_size=8).rows
    assert row.status == LEFT_ALONE
    assert "float64" in row.reason


def test_a_model_that_takes_no_image_has_rows_without_bytes():
    class Detector(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = block()

        def forward(self, images):
            return self.body(images.unbind_pair())

    report = effnet_fast.fusion_report(Detector().eval())
    assert [row.status for row in report.rows] == [CAN_BE_FUSED]
    assert report.image_size is None
    assert report.bytes_before is None
    assert report.bytes_after is None
    assert "does not run on one image" in str(report)


def test_a_backend_that_cannot_serve_is_the_reason():
    fused = effnet_fast.fuse(block(), backend="cpu")
    report = effnet_fast.fusion_report(fused.to("meta"), image_size=8)
    assert "cpu tensors, got meta" in report.rows[0].reason
    # nobody asked for a backend: the modules themselves run
    (row,) = effnet_fast.fusion_report(copy.deepcopy(block()).to("meta"), image_size=8).rows
    assert row.bytes_after == row.bytes_before
    assert "its own modules run" in row.reason


def test_the_table_shows_all_rows_and_totals():
    model = nn.Sequential(
        block(), nn.Conv2d(8, 8, (3, 1)), GroupNormAct(8, 2), nn.Sequential(block(squeeze_channels=2))
    )
    report = effnet_fast.fusion_report(effnet_fast.fuse(model.eval()), image_size=16)
    text = str(report)
    assert "2 fused, 0 can be fused, 1 left alone" in text
    assert "outside" in text
    assert [row.path for row in report.rows] == ["0", "1", "3.0"]
    for row in report.rows:
        line = next(line for line in text.splitlines() if line.startswith(f" {row.path} "))
        assert row.name in line
        assert row.status in line
    assert f"{report.bytes_before / report.bytes_after:.1f} times less" in text


def test_nothing_to_fuse_is_a_report_too():
    report = effnet_fast.fusion_report(nn.Linear(2, 2))
    assert report.rows == ()
    assert "there is nothing to fuse" in str(report)


@pytest.mark.parametrize(
    ("size", "error", "words"),
    [
        (0, ValueError, "at least 1"),
        ("224", TypeError, "an int or two"),
        ((1, 2, 3), TypeError, "an int or two"),
    ],
)
def test_wrong_sizes_are_refused(size, error, words):
    with pytest.raises(error, match=words):
        effnet_fast.fusion_report(block(), image_size=size)


def test_a_model_must_be_a_module():
    with pytest.raises(TypeError, match=r"torch\.nn\.Module, got int"):
        effnet_fast.fusion_report(3)
