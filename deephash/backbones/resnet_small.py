"""A small residual network for small images."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deephash.backbones.image_size import check_image_size

IMAGES_PER_CHUNK = 100  # bounds the memory of `whiten`
WHITENING_EPS = 5e-4


class ResNetSmall(nn.Module):
    """A small residual network: a whitening 2 x 2 stem, then stages of two convolutions each.

    The filters of the stem are not learned. They are the principal components of 2 x 2 patches,
    each with both signs, and are computed by `whiten` (Jordan 2024, "94% on CIFAR-10 in 3.29
    Seconds on a Single GPU"). Each stage halves the maps after its first convolution, and adds the
    output of its second convolution to the input of that. Activations are GELU, normalisation is
    batch norm, and the features are the maxima of the last maps.

    Args:
        in_chans: channels of the images.
        image_size: height and width of the images.
        widths: channels of the stages; the last is `num_features`.

    Raises:
        UserError: the images are too small for the number of stages.

    Example:
        >>> ResNetSmall(3, (32, 32), widths=[16, 48, 64])(torch.randn(2, 3, 32, 32)).shape
        torch.Size([2, 64])
    """

    filters: Tensor

    def __init__(
        self, in_chans: int, image_size: tuple[int, int], *, widths: Sequence[int]
    ) -> None:
        super().__init__()
        if not widths or min(widths) < 1:
            raise ValueError(f"widths={list(widths)}: one or more positive numbers are needed")
        check_image_size("resnet_small", image_size, minimum=2 ** len(widths) + 1)
        patch = in_chans * 2 * 2
        self.register_buffer("filters", _with_both_signs(torch.eye(patch), in_chans))
        self.bias = nn.Parameter(torch.zeros(2 * patch))
        self.stages = nn.Sequential(
            *(_Stage(a, b) for a, b in zip([2 * patch, *widths], widths, strict=False))
        )
        self.num_features = widths[-1]

    def whiten(self, images: Tensor) -> None:
        """Set the filters of the stem so that its outputs are uncorrelated and have variance 1.

        Args:
            images: standardised training images, float32 (n, c, h, w).
        """
        channels = images.shape[1]
        covariance = torch.zeros(channels * 4, channels * 4, dtype=torch.float64)
        for chunk in images.split(IMAGES_PER_CHUNK):
            patches = chunk.double().unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5)
            patches = patches.reshape(-1, channels * 4)
            covariance += patches.T @ patches / (len(images) * len(patches) / len(chunk))
        variance, components = torch.linalg.eigh(covariance)
        # Components of almost no variance are mostly noise, which the constant keeps small.
        whitening = components.T / (variance + WHITENING_EPS).sqrt()[:, None]
        self.filters.copy_(_with_both_signs(whitening, channels))

    def forward(self, images: Tensor) -> Tensor:
        whitened = F.conv2d(images, self.filters, self.bias)
        return self.stages(F.gelu(whitened)).amax(dim=(2, 3))


def _with_both_signs(filters: Tensor, channels: int) -> Tensor:
    """Filters (f, 4 * channels) and their negatives, (2 * f, channels, 2, 2)."""
    return torch.cat([filters, -filters]).view(-1, channels, 2, 2)


class _Stage(nn.Module):
    def __init__(self, in_chans: int, out_chans: int) -> None:
        super().__init__()
        self.widen = nn.Conv2d(in_chans, out_chans, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_chans)
        self.refine = nn.Conv2d(out_chans, out_chans, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_chans)

    def forward(self, maps: Tensor) -> Tensor:
        maps = F.gelu(self.norm1(F.max_pool2d(self.widen(maps), 2)))
        return F.gelu(maps + self.norm2(self.refine(maps)))
