"""Standardisation of images in front of a backbone."""

import torch
from torch import Tensor, nn

from deephash.core.shapes import check_shape


class NormalizedBackbone(nn.Module):
    """A backbone that takes uint8 images and standardises them.

    Mean and standard deviation are buffers, so that checkpoints contain them.

    Args:
        backbone: any backbone with timm's contract, see `deephash.backbones`.
        mean: mean of each channel, for pixel values 0 to 255, float32 (c,).
        std: standard deviation of each channel, float32 (c,).

    Example:
        >>> from deephash.backbones import LeNet
        >>> net = NormalizedBackbone(LeNet(1, (28, 28)), torch.tensor([33.0]), torch.tensor([79.0]))
        >>> net(torch.zeros(2, 1, 28, 28, dtype=torch.uint8)).shape
        torch.Size([2, 500])
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
        """Let the backbone compute weights from training images, if it has a method `whiten`.

        Args:
            images: uint8 (n, c, h, w).
        """
        whiten = getattr(self.backbone, "whiten", None)
        if whiten is not None:
            whiten(self.standardize(images))

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 images (n, c, h, w) to features (n, num_features), of the type of `mean`.

        Raises:
            UserError: the backbone returns something else.
        """
        standardized = self.standardize(images).contiguous(memory_format=torch.channels_last)
        features = self.backbone(standardized)
        place = f"backbone: {type(self.backbone).__name__}.forward"
        check_shape(place, features, (len(images), self.num_features), "(images, num_features)")
        return features.to(self.mean)

    def standardize(self, images: Tensor) -> Tensor:
        """Give the channels of uint8 images mean 0 and standard deviation 1.

        Args:
            images: uint8 (n, c, h, w).

        Returns:
            images of the type of `mean`, (n, c, h, w).
        """
        return (images - self.mean) / self.std
