"""EfficientNet, its relatives and MobileNetV2: configurations, models by name, weights, exact counts."""

from effnet_fast.models.checkpoint import WeightsError
from effnet_fast.models.coefficients import Coefficients
from effnet_fast.models.config import EfficientNetConfig, MBConvConfig, Preprocessing
from effnet_fast.models.counts import count_macs, count_parameters, layers, macs_by_kind
from effnet_fast.models.efficientnet import EfficientNet, scaled_config
from effnet_fast.models.imagenet import imagenet_classes
from effnet_fast.models.naming import convert_state_dict
from effnet_fast.models.pretrained import lite0_weights_path
from effnet_fast.models.registry import create_model, list_models, model_config
from effnet_fast.models.weights import LoadReport, load_weights

__all__ = [
    "Coefficients",
    "EfficientNet",
    "EfficientNetConfig",
    "LoadReport",
    "MBConvConfig",
    "Preprocessing",
    "WeightsError",
    "convert_state_dict",
    "count_macs",
    "count_parameters",
    "create_model",
    "imagenet_classes",
    "layers",
    "list_models",
    "lite0_weights_path",
    "load_weights",
    "macs_by_kind",
    "model_config",
    "scaled_config",
]
