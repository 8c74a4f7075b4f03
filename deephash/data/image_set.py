"""What a data set is: images, labels and ids."""

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deephash.data.files.decoded_cache import Hashes, ImageFiles, content_hash

IMAGES_COUNTED = 2**16


@dataclass(frozen=True)
class ImageSet:
    """Images with labels and stable ids.

    Attributes:
        name: of the data set.
        images: uint8 (n, channels, height, width), in memory or in files.
        labels: int64 class indices (n,), or uint8 multi-hot (n, classes).
        ids: unique strings (n,), the same on every machine.
        classes: their names.
        is_test: bool (n,), the official test images; all false where there is no official split.
        report: what was left out, and why; of sets that can lack images.
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
        """SHA-256 over ids, labels and pixels; of files over the hashes of their pixels."""
        digest = hashlib.sha256()
        digest.update(os.fsencode("\n".join(self.ids)))
        digest.update(self.labels.numpy().tobytes())
        pixels = self.images.numpy() if isinstance(self.images, Tensor) else self.contents
        digest.update(pixels.tobytes())
        return digest.hexdigest()

    @cached_property
    def contents(self) -> Hashes:
        """A hash of each image's pixels, uint64 (n,)."""
        if isinstance(self.images, ImageFiles):
            return self.images.contents
        return np.array([content_hash(image) for image in self.images.numpy()], dtype=np.uint64)


def channel_statistics(images: Tensor | ImageFiles, indices: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over these images: float32 (c,) each.

    From counts of the 256 values, so exact and without a float copy of the images. Of more than
    65,536 images as many are looked at, evenly chosen.
    """
    levels = torch.arange(256, dtype=torch.float64)
    counts = torch.zeros(images.shape[1], 256, dtype=torch.int64)
    for some in torch.from_numpy(indices[:: -(-len(indices) // IMAGES_COUNTED)]).split(1000):
        for channel, values in enumerate(images[some].unbind(dim=1)):
            counts[channel] += torch.bincount(values.flatten(), minlength=256)
    weights = counts / counts.sum(dim=1, keepdim=True, dtype=torch.float64)
    means = (weights * levels).sum(dim=1, keepdim=True)
    stds = (weights * (levels - means) ** 2).sum(dim=1).sqrt().clamp(min=1e-3)
    return means.squeeze(1).float(), stds.float()
