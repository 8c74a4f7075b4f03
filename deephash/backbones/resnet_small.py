"""Our net for small images."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deephash.backbones.image_size import check_image_size


class ResNetSmall(nn.Module):
    """A modern small net for small images: a 2 x 2 stem, then two convolutions a stage.

    The stem whitens: its filters are not learnt but the principal components of 2 x 2 patches, each
    with both signs, which `whiten` computes (Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a
    Single GPU"). Each stage halves the image after its first convolution and adds the second one's
    output to its input. Batch norm, GELU, global maximum over the last maps.

    Args:
        in_chans: channels of the images.
        image_size: their height and width.
        widths: channels of the stages; the last is `num_features`.
    """

    filters: Tensor

    def __init__(
        self, in_chans: int, image_size: tuple[int, int], *, widths: Sequence[int]
    ) -> None:
        super().__init__()
        check_image_size("resnet_small", image_size, least=2 ** len(widths) + 1)
        patch = in_chans * 2 * 2
        self.register_buffer("filters", _both_signs(torch.eye(patch), in_chans))
        self.bias = nn.Parameter(torch.zeros(2 * patch))
        self.stages = nn.Sequential(
            *(_Stage(a, b) for a, b in zip([2 * patch, *widths], widths, strict=False))
        )
        self.num_features = widths[-1]

    def whiten(self, images: Tensor) -> None:
        """Set the stem's filters so that its outputs are uncorrelated and of variance 1.

        Args:
            images: standardised training images, float32 (n, c, h, w).
        """
        channels = images.shape[1]
        covariance = torch.zeros(channels * 4, channels * 4, dtype=torch.float64)
        for some in images.split(100):
            patches = some.double().unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5)
            patches = patches.reshape(-1, channels * 4)
            covariance += patches.T @ patches / (len(images) * len(patches) / len(some))
        variance, components = torch.linalg.eigh(covariance)
        # Next to black and white there is little variance: the constant keeps noise small.
        scaled = components.T / (variance + 5e-4).sqrt()[:, None]
        self.filters.copy_(_both_signs(scaled, channels))

    def forward(self, images: Tensor) -> Tensor:
        whitened = F.conv2d(images, self.filters, self.bias)
        return self.stages(F.gelu(whitened)).amax(dim=(2, 3))


def _both_signs(filters: Tensor, channels: int) -> Tensor:
    return torch.cat([filters, -filters]).view(-1, channels, 2, 2)


class _Stage(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.widen = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.refine = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)

    def forward(self, maps: Tensor) -> Tensor:
        maps = F.gelu(self.norm1(F.max_pool2d(self.widen(maps), 2)))
        return F.gelu(maps + self.norm2(self.refine(maps)))
