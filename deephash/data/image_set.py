"""Image sets: images with labels and ids."""

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from deephash.core.errors import UserError
from deephash.data.files.decoded_cache import ImageFiles
from deephash.data.files.fingerprints import ContentHashes, content_hash

MAX_COUNTED_IMAGES = 2**16
MAX_CHANNELS = 4
LARGER_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)  # which torch can hardly compute with


@dataclass(frozen=True)
class ImageSet:
    """Images with labels and stable ids.

    Tensors, arrays and sequences are all taken, and are converted to the types below.

    Attributes:
        name: of the data set.
        images: uint8 (n, channels, height, width), in memory or in files.
        labels: int64 class indices (n,), or uint8 multi-hot (n, classes).
        ids: unique strings (n,), the same on every machine.
        classes: class names.
        is_test: bool (n,), the official test images; all false if there is no official split.
        report: the images that were left out and why, for data sets that are read from files.

    Raises:
        UserError: a field has another type, shape or length, an id occurs twice, or a label is
            beyond the classes.

    Example:
        >>> image_set = ImageSet(
        ...     name="tiny",
        ...     images=torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
        ...     labels=[1, 0],
        ...     ids=["a.jpg", "b.jpg"],
        ...     classes=("cat", "dog"),
        ...     is_test=[False, True],
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

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise UserError(f"ImageSet: name is {self.name!r}; give a text.")
        for name, convert in (
            ("images", self._convert_images),
            ("classes", self._convert_classes),
            ("labels", self._convert_labels),
            ("ids", self._convert_ids),
            ("is_test", self._convert_is_test),
        ):
            object.__setattr__(self, name, convert())

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of ids, labels and pixels; for images in files, of the hashes of their pixels."""
        digest = hashlib.sha256()
        # A list, because joining the elements of an array would swallow a KeyboardInterrupt.
        digest.update(os.fsencode("\n".join(self.ids.tolist())))
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

    def _convert_images(self) -> Tensor | ImageFiles:
        if isinstance(self.images, ImageFiles):
            return self.images
        images = self._to_tensor("images", self.images)
        if images.ndim != 4 or images.dtype != torch.uint8 or 0 in images.shape[1:]:
            self._refuse(
                "images",
                f"have shape {tuple(images.shape)} and type {_name_of(images.dtype)}",
                "give uint8 pixels from 0 to 255, (n, channels, height, width)",
            )
        if images.shape[1] > MAX_CHANNELS >= images.shape[3]:
            self._refuse(
                "images",
                f"have shape {tuple(images.shape)}, with the channels last",
                "give (n, channels, height, width): images.transpose(0, 3, 1, 2)",
            )
        return images.cpu()

    def _convert_classes(self) -> tuple[str, ...]:
        classes = self.classes
        is_ordered = isinstance(classes, Sequence) and not isinstance(classes, str)
        if isinstance(classes, np.ndarray):
            is_ordered = classes.ndim == 1
        if not is_ordered or not all(isinstance(name, str) for name in classes):
            expected = "give the names of the classes as a list or tuple of strings"
            self._refuse("classes", f"are {classes!r}", expected)
        names = tuple(map(str, classes))
        if len(set(names)) < len(names):
            repeated = Counter(names).most_common(1)[0][0]
            self._refuse("classes", f"name '{repeated}' twice", "give each class its own name")
        return names

    def _convert_labels(self) -> Tensor:
        labels, count = self._to_tensor("labels", self.labels).cpu(), len(self.classes)
        if labels.dtype in LARGER_UNSIGNED:
            labels = labels.long()  # what is too large becomes negative, which is refused below
        expected = (
            f"give integers, class indices ({len(self)},) or multi-hot ({len(self)}, {count})"
        )
        is_multi_hot = labels.ndim == 2
        if (
            labels.is_floating_point()
            or labels.is_complex()
            or labels.ndim not in (1, 2)
            or len(labels) != len(self)
            or (is_multi_hot and (labels.shape[1] != count or count == 1))
        ):
            found = f"have shape {tuple(labels.shape)} and type {_name_of(labels.dtype)}"
            self._refuse("labels", found, expected)
        if labels.numel():
            lowest, highest = int(labels.min()), int(labels.max())
            limit = 1 if is_multi_hot else count - 1
            if lowest < 0 or highest > limit:
                value = lowest if lowest < 0 else highest
                row = int((labels == value).nonzero()[0, 0])
                kind = (
                    "multi-hot labels are 0 and 1"
                    if is_multi_hot
                    else (f"the indices of {count} classes are 0 to {limit}")
                )
                self._refuse("labels", f"have the value {value} in row {row}", kind)
        return labels.to(torch.uint8 if is_multi_hot else torch.int64)

    def _convert_ids(self) -> np.ndarray:
        ids = np.asarray(self.ids)
        if ids.shape != (len(self),) or ids.dtype.kind not in "UO":
            found = f"have shape {ids.shape} and type {_name_of(ids.dtype)}"
            self._refuse("ids", found, f"give {len(self)} strings")
        for value in ids if ids.dtype.kind == "O" else ():
            if not isinstance(value, str):
                self._refuse("ids", f"hold {value!r}", f"give {len(self)} strings")
        if len(set(ids.tolist())) < len(ids):
            names, counts = np.unique(ids, return_counts=True)
            repeated = names[counts.argmax()]
            self._refuse(
                "ids", f"name '{repeated}' {counts.max()} times", "give each image an id of its own"
            )
        return ids

    def _convert_is_test(self) -> np.ndarray:
        is_test = np.asarray(self.is_test)
        if is_test.shape != (len(self),) or is_test.dtype != bool:
            found = f"has shape {is_test.shape} and type {_name_of(is_test.dtype)}"
            self._refuse("is_test", found, f"give {len(self)} booleans, all false without a split")
        return is_test

    def _to_tensor(self, field: str, values: Any) -> Tensor:
        if isinstance(values, list | tuple) and any(isinstance(v, np.ndarray) for v in values):
            values = self._stack(field, values)
        is_array = isinstance(values, np.ndarray)
        if is_array:
            values = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
        try:
            with warnings.catch_warnings():
                # A read-only array, such as a memory-mapped one, is never written to.
                warnings.filterwarnings("ignore", "The given NumPy array is not writable")
                tensor = torch.as_tensor(values)
        except (TypeError, ValueError, RuntimeError):
            found = f"of {values.dtype}" if is_array else f"of type {type(values).__name__}"
            self._refuse(field, f"are {found}", "give a tensor or an array of numbers")
        if tensor.layout != torch.strided:
            self._refuse(field, "are a sparse tensor", "give a dense one, tensor.to_dense()")
        return tensor

    def _stack(self, field: str, arrays: Sequence[Any]) -> np.ndarray:
        try:
            return np.stack(arrays)  # for which torch would need seconds, and warn
        except ValueError:
            self._refuse(field, "are arrays of several shapes", "give arrays of one shape")

    def _refuse(self, field: str, found: str, expected: str) -> NoReturn:
        raise UserError(f"ImageSet '{self.name}': {field} {found}; {expected}.")


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


def _name_of(dtype: torch.dtype | np.dtype) -> str:
    """The name of a type, without its library."""
    return str(dtype).removeprefix("torch.")
