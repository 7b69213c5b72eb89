"""The fixed list of `benchmarks fuse`: models that people have, of three libraries and all families.

Weights are seeded and random, with batch-norm statistics of noise: speed does not depend on them, and the
gate needs activations of a realistic size.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass

from torch import nn

from benchmarks.subject import calibrated

#: The family that has a target of its own.
EFFICIENTNET = "EfficientNet"


@dataclass(frozen=True)
class FuseModel:
    """A model of a library; `library` is the name of the package.

    `image_size` is that of the published weights, but at most 240 pixels: B3 and B4 take 300 and 380, at
    which an eager call of 8 images lasts a second.
    """

    library: str
    model: str
    family: str
    image_size: int = 224

    @property
    def name(self) -> str:
        return f"{self.library} {self.model}"

    def make(self) -> nn.Module:
        """A new one, with random weights."""
        package = importlib.import_module(self.library)
        if self.library == "torchvision":
            return package.models.get_model(self.model, weights=None)
        if self.library == "efficientnet_pytorch":
            # Its padding is fixed when it is built, for one image size.
            return package.EfficientNet.from_name(self.model, image_size=self.image_size)
        return package.create_model(self.model)


MODELS = (
    FuseModel("timm", "efficientnet_b0", EFFICIENTNET),
    FuseModel("timm", "efficientnet_b1", EFFICIENTNET, 240),
    FuseModel("timm", "tf_efficientnet_b2", EFFICIENTNET, 240),
    FuseModel("timm", "efficientnet_b3", EFFICIENTNET, 240),
    FuseModel("timm", "tf_efficientnet_b4", EFFICIENTNET, 240),
    FuseModel("timm", "tf_efficientnet_lite0", EFFICIENTNET),
    FuseModel("timm", "tf_efficientnetv2_b0", EFFICIENTNET),
    FuseModel("timm", "efficientnet_es", EFFICIENTNET),
    FuseModel("torchvision", "efficientnet_b0", EFFICIENTNET),
    FuseModel("torchvision", "efficientnet_b3", EFFICIENTNET, 240),
    FuseModel("torchvision", "efficientnet_v2_s", EFFICIENTNET, 240),
    FuseModel("efficientnet_pytorch", "efficientnet-b0", EFFICIENTNET),
    FuseModel("efficientnet_pytorch", "efficientnet-b1", EFFICIENTNET, 240),
    FuseModel("timm", "tinynet_a", "TinyNet", 192),
    FuseModel("timm", "mobilenetv2_100", "MobileNetV2"),
    FuseModel("torchvision", "mobilenet_v2", "MobileNetV2"),
    FuseModel("timm", "mobilenetv3_large_100", "MobileNetV3"),
    FuseModel("torchvision", "mobilenet_v3_small", "MobileNetV3"),
    FuseModel("timm", "mobilenetv4_conv_medium", "MobileNetV4"),
    FuseModel("torchvision", "mnasnet1_0", "MnasNet"),
    FuseModel("timm", "semnasnet_100", "MnasNet"),
    FuseModel("timm", "hardcorenas_a", "HardCoRe-NAS"),
    FuseModel("timm", "lcnet_100", "LCNet"),
    FuseModel("timm", "fbnetc_100", "FBNet"),
)
BY_NAME = {model.name: model for model in MODELS}


def parse_models(names: tuple[str, ...]) -> list[FuseModel]:
    """Those of the list whose name, with or without the library, is among `names`; all of it without any.

    Raises: ValueError for a name that none has.
    """
    for name in names:
        if not any(name in (model.name, model.model) for model in MODELS):
            raise ValueError(f"--model: {name!r} is not in the list; allowed: {', '.join(BY_NAME)}")
    return [model for model in MODELS if not names or {model.name, model.model} & set(names)]


@functools.lru_cache(maxsize=1)
def prepared(model: FuseModel, seed: int = 0) -> nn.Module:
    """`model` in float32, evaluating, as after training; not to be changed. The last one is kept."""
    return calibrated(model.make, model.image_size, seed=seed)
