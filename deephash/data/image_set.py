"""Image sets: images with labels and ids."""

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deephash.data.files.decoded_cache import ImageFiles
from deephash.data.files.fingerprints import ContentHashes, content_hash

MAX_COUNTED_IMAGES = 2**16


@dataclass(frozen=True)
class ImageSet:
    """Images with labels and stable ids.

    Attributes:
        name: of the data set.
        images: uint8 (n, channels, height, width), in memory or in files.
        labels: int64 class indices (n,), or uint8 multi-hot (n, classes).
        ids: unique strings (n,), the same on every machine.
        classes: class names.
        is_test: bool (n,), the official test images; all false if there is no official split.
        report: the images that were left out and why, for data sets that are read from files.

    Example:
        >>> image_set = ImageSet(
        ...     name="tiny",
        ...     images=torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
        ...     labels=torch.tensor([1, 0]),
        ...     ids=np.array(["a.jpg", "b.jpg"]),
        ...     classes=("cat", "dog"),
        ...     is_test=np.array([False, True]),
        ... )
        >>> len(image_set), image_set.checksum[:8]
        (2, '030a3e13')
    """

    name: str
    images: Tensor | ImageFiles
    labels: Tensor
    ids: np.ndarray
    classes: tuple[str, ...]
    is_test: np.ndarray
    report: dict[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of ids, labels and pixels; for images in files, of the hashes of their pixels."""
        digest = hashlib.sha256()
        digest.update(os.fsencode("\n".join(self.ids)))
        digest.update(self.labels.numpy().tobytes())
        pixels = self.images.numpy() if isinstance(self.images, Tensor) else self.content_hashes
        digest.update(pixels.tobytes())
        return digest.hexdigest()

    @cached_property
    def content_hashes(self) -> ContentHashes:
        """Hash of each image's pixels, uint64 (n,)."""
        if isinstance(self.images, ImageFiles):
            return self.images.content_hashes
        return np.array([content_hash(image) for image in self.images.numpy()], dtype=np.uint64)


def channel_statistics(images: Tensor | ImageFiles, indices: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the pixels of each channel.

    Exact, from counts of the 256 values, without a float copy of the images. Of more than 65,536
    images an evenly spaced sample is used.

    Args:
        images: uint8 (n, channels, height, width).
        indices: int64 (m,), the images to use.

    Returns:
        Means and standard deviations, float32 (channels,) each, in levels from 0 to 255.

    Example:
        >>> images = torch.tensor([0, 100, 200], dtype=torch.uint8).view(3, 1, 1, 1)
        >>> channel_statistics(images, np.array([0, 1]))
        (tensor([50.]), tensor([50.]))
    """
    levels = torch.arange(256, dtype=torch.float64)
    counts = torch.zeros(images.shape[1], 256, dtype=torch.int64)
    step = -(-len(indices) // MAX_COUNTED_IMAGES)
    for chunk in torch.from_numpy(indices[::step]).split(1000):
        for channel, values in enumerate(images[chunk].unbind(dim=1)):
            counts[channel] += torch.bincount(values.flatten(), minlength=256)
    weights = counts / counts.sum(dim=1, keepdim=True, dtype=torch.float64)
    means = (weights * levels).sum(dim=1, keepdim=True)
    stds = (weights * (levels - means) ** 2).sum(dim=1).sqrt().clamp(min=1e-3)
    return means.squeeze(1).float(), stds.float()
