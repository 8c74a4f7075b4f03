"""Nets with timm's contract: `forward(images (n, c, h, w)) -> (n, num_features)`."""

from deephash.backbones.caffe import CifarQuick, LeNet
from deephash.backbones.pretrained import efficientnet_lite0, timm_model
from deephash.backbones.resnet_small import ResNetSmall
from deephash.backbones.standardized import Standardized

__all__ = [
    "CifarQuick",
    "LeNet",
    "ResNetSmall",
    "Standardized",
    "efficientnet_lite0",
    "timm_model",
]
