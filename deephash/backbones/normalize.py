"""The training images' statistics in front of a net."""

import torch
from torch import Tensor, nn

from deephash.backbones.resnet_small import ResNetSmall


class NormalizedBackbone(nn.Module):
    """A backbone that takes uint8 images: the training images' statistics travel with it.

    Args:
        backbone: with timm's contract.
        mean: of each channel, float32 (c,).
        std: likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        # Convolutions on a CPU and on tensor cores are fastest with channels last.
        self.backbone = backbone.to(memory_format=torch.channels_last)
        self.num_features: int = backbone.num_features  # type: ignore[assignment]
        self.register_buffer("mean", mean.view(1, -1, 1, 1))
        self.register_buffer("std", std.view(1, -1, 1, 1))

    def fit(self, images: Tensor) -> None:
        """Let a backbone whose first layer is computed from images see uint8 ones (n, c, h, w)."""
        if isinstance(self.backbone, ResNetSmall):
            self.backbone.whiten(self.standardized(images))

    def forward(self, images: Tensor) -> Tensor:
        """Features (n, num_features) of uint8 images (n, c, h, w), in the statistics' precision."""
        standardized = self.standardized(images).contiguous(memory_format=torch.channels_last)
        return self.backbone(standardized).to(self.mean)

    def standardized(self, images: Tensor) -> Tensor:
        """The images with the channels' mean 0 and deviation 1, in the statistics' precision."""
        return (images - self.mean) / self.std
