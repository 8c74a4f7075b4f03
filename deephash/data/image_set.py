"""What a data set is: images, labels and ids in memory."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class ImageSet:
    """Images with labels and stable ids.

    Attributes:
        name: of the data set.
        images: uint8 (n, channels, height, width).
        labels: int64 class indices (n,), or uint8 multi-hot (n, classes).
        ids: unique strings (n,), the same on every machine.
        classes: their names.
        is_test: bool (n,), the official test images; all false where there is no official split.
    """

    name: str
    images: Tensor
    labels: Tensor
    ids: np.ndarray
    classes: tuple[str, ...]
    is_test: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def checksum(self) -> str:
        """SHA-256 over ids, labels and pixels."""
        digest = hashlib.sha256()
        digest.update("\n".join(self.ids).encode())
        digest.update(self.labels.numpy().tobytes())
        digest.update(self.images.numpy().tobytes())
        return digest.hexdigest()


def channel_statistics(images: Tensor, indices: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over these images: float32 (c,) each.

    From counts of the 256 values, so exact and without a float copy of the images.
    """
    levels = torch.arange(256, dtype=torch.float64)
    chosen = images[torch.from_numpy(indices)]
    means, stds = [], []
    for channel in chosen.unbind(dim=1):
        weights = torch.bincount(channel.flatten(), minlength=256).double()
        weights /= weights.sum()
        mean = (weights * levels).sum()
        means.append(mean)
        stds.append(((weights * (levels - mean) ** 2).sum()).sqrt().clamp(min=1e-3))
    return torch.stack(means).float(), torch.stack(stds).float()
