"""Backbones: networks that map images to features.

Any `torch.nn.Module` is a backbone if it keeps timm's contract: `forward(images)` maps standardised
float32 images (n, c, h, w) to features (n, num_features), and `num_features` is an attribute. It is
created with the arguments `in_chans` and `image_size`, and with the keyword settings of its file in
`conf/backbone/`. Two more members are optional:

- `statistics`: mean and standard deviation of the channels, two float32 tensors (c,) for pixel
  values 0 to 255, or None. A pre-trained backbone names those of its pre-training here; without
  them, images are standardised with the statistics of the training images.
- `whiten(images)`: computes weights from standardised training images, float32 (n, c, h, w), before
  training begins.
"""

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
