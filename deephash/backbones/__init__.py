"""Nets with timm's contract: `forward(images (n, c, h, w)) -> (n, num_features)`."""

from deephash.backbones.caffe import CifarQuick, LeNet
from deephash.backbones.normalize import NormalizedBackbone
from deephash.backbones.pretrained import efficientnet_lite0, timm_model
from deephash.backbones.resnet_small import ResNetSmall

__all__ = [
    "CifarQuick",
    "LeNet",
    "NormalizedBackbone",
    "ResNetSmall",
    "efficientnet_lite0",
    "timm_model",
]
