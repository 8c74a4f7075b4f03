"""Images in files, decoded once into a memory-mapped cache or anew whenever they are read."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deephash.core.errors import UserError
from deephash.data.files.decoded_store import (
    INDEX,
    PIXELS,
    DecodedStore,
    Records,
    are_intact,
    store_of,
)
from deephash.data.files.decoding import BrokenImageError, decode_image
from deephash.data.files.fingerprints import (
    BROKEN,
    ContentHashes,
    content_hash,
    fingerprint,
    fingerprint_whole,
)
from deephash.data.files.pixel_range import PixelRange, check_used_ranges, warn_of_outliers
from deephash.data.files.store_filling import StoreFiller
from deephash.data.files.threads import map_in_threads


@dataclass(frozen=True)
class ImageFiles:
    """Images in files, indexed like a uint8 tensor (n, 3, size, size).

    The tensors that indexing returns are in channels-last memory format.

    Attributes:
        paths: str (n,), of the files.
        size: side of the images in pixels.
        content_hashes: 64 bits of the SHA-1 of each image's pixels, uint64 (n,).
        pixels: memory-mapped uint8 (m, size, size, 3); None if images are decoded when indexed.
        rows: row of `pixels` that holds each image, int64 (n,).
        pixel_range: see `decode_image`.
        max_pixels: see `decode_image`.
        workers: number of data loader processes that decode, if images are decoded when indexed.
    """

    paths: npt.NDArray[np.object_]
    size: int
    content_hashes: ContentHashes
    pixels: Tensor | None
    rows: Tensor
    pixel_range: PixelRange
    max_pixels: int | None
    workers: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, 3, size, size)."""
        return (len(self.paths), 3, self.size, self.size)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, indices: Tensor) -> Tensor:
        if self.pixels is not None:
            return self.pixels[self.rows[indices]].permute(0, 3, 1, 2)
        images = np.empty((len(indices), self.size, self.size, 3), dtype=np.uint8)
        for image, path in zip(images, self.paths[indices.numpy()], strict=True):
            try:
                image[:] = decode_image(path, self.size, self.pixel_range, self.max_pixels)
            except BrokenImageError as error:
                raise UserError(
                    f"{path}: {error}. The file could be decoded when the run began."
                ) from None
        return torch.from_numpy(images).permute(0, 3, 1, 2)

    def select(self, mask: npt.NDArray[np.bool_]) -> "ImageFiles":
        """The images where `mask` (n,) is true."""
        return replace(
            self,
            paths=self.paths[mask],
            content_hashes=self.content_hashes[mask],
            rows=self.rows[torch.from_numpy(mask)],
        )


def decode_files(
    paths: Sequence[str | Path],
    *,
    size: int,
    cache_decoded: bool,
    decoded_dir: Path,
    workers: int,
    pixel_range: PixelRange = "full",
    max_pixels: int | None = None,
) -> tuple[ImageFiles, dict[int, str]]:
    """Decode each file once, to find broken files and duplicates and to cache the pixels.

    The results are stored in a folder below `decoded_dir`, and found again by name, size, time and
    some KB of the content of each file, but not by where it lies. If several processes need the
    same folder, one decodes and the others wait. Interrupted decoding is resumed. Where nothing is
    to be added, the folder is only read. Broken files are tried again each time. O(n) time; O(1)
    memory per image beyond the page cache.

    Args:
        paths: of the image files.
        size: side of the decoded images in pixels, see `decode_image`.
        cache_decoded: whether to store the pixels, 3 * size^2 bytes per image; if not, images are
            decoded again each time they are read.
        decoded_dir: folder for the results of this and other data sets.
        workers: number of threads here, and of data loader processes later.
        pixel_range: see `decode_image`.
        max_pixels: see `decode_image`.

    Returns:
        The images, and the reasons why some files are broken, by position in `paths`.

    Raises:
        UserError: `workers` is below 1, `decoded_dir` cannot be written to, the stored results are
            corrupt, or all images of 16 bits use a small part of their range and `pixel_range` is
            `full`.
    """
    if workers < 1:
        raise UserError(
            f"dataset.workers={workers}: must be at least 1, or null for the number of CPU cores."
        )
    store = store_of(decoded_dir, size=size, keeps_pixels=cache_decoded, pixel_range=pixel_range)
    fingerprints, broken = _take_fingerprints(paths, workers)
    positions = {value: position for position, value in enumerate(fingerprints) if value}
    filler = StoreFiller(
        store, {value: paths[i] for value, i in positions.items()}, pixel_range, max_pixels
    )
    index, row_of = filler.fill(workers)
    for position, value in enumerate(fingerprints):
        if value in filler.broken:
            broken[position] = filler.broken[value]
    rows = np.array([row_of.get(value, -1) for value in fingerprints], dtype=np.int64)
    is_usable = np.ones(len(paths), dtype=bool)
    is_usable[list(broken)] = False
    if (rows[is_usable] < 0).any():
        raise store.corrupt_error(f"{INDEX} was removed or truncated meanwhile")
    records = index[rows[is_usable]]
    if not are_intact(records):
        raise store.corrupt_error(f"{INDEX} is not as it was written")
    content_hashes = np.full(len(paths), BROKEN, dtype=np.uint64)
    content_hashes[is_usable] = records["content_hash"]
    pixels = store.map_pixels(len(index)) if cache_decoded else None
    if cache_decoded and len(records):
        _verify(store, index, np.unique(rows[is_usable]), workers)
    has_range = records["lowest"] <= records["highest"]
    if has_range.any():
        judged = records[has_range]
        check_used_ranges(judged["lowest"], judged["highest"], judged["has_outliers"])
    elif len(records):
        warn_of_outliers(records["has_outliers"])
    images = ImageFiles(
        paths=np.array([str(path) for path in paths], dtype=object),
        size=size,
        content_hashes=content_hashes,
        pixels=None if pixels is None else torch.from_numpy(pixels),
        rows=torch.from_numpy(rows),
        pixel_range=pixel_range,
        max_pixels=max_pixels,
        workers=workers,
    )
    return images, broken


def _take_fingerprints(
    paths: Sequence[str | Path], workers: int
) -> tuple[list[bytes], dict[int, str]]:
    """Fingerprints of the files, and the reasons why some cannot be read, by position.

    Files of equal fingerprints get others, of their whole content; those that cannot be read get an
    empty one.
    """
    fingerprints = [b""] * len(paths)
    unreadable: dict[int, str] = {}

    def take(positions: npt.NDArray[np.int64]) -> None:
        for position in positions.tolist():
            try:
                fingerprints[position] = fingerprint(paths[position])
            except OSError as error:
                unreadable[position] = error.strerror or str(error)

    map_in_threads(take, np.arange(len(paths)), workers, "looking at files")
    counts = Counter(fingerprints)
    for position, value in enumerate(fingerprints):
        if value and counts[value] > 1:
            try:
                fingerprints[position] = fingerprint_whole(paths[position])
            except OSError as error:
                fingerprints[position] = b""
                unreadable[position] = error.strerror or str(error)
    return fingerprints, unreadable


def _verify(store: DecodedStore, index: Records, rows: npt.NDArray[np.int64], workers: int) -> None:
    """Check the stored pixels in these rows against their hashes.

    Raises:
        UserError: some differ, or the file is truncated.
    """
    path = store.folder / PIXELS
    changed: list[int] = []

    def check(chunk: npt.NDArray[np.int64]) -> None:
        # Read from the file, as the pages of a mapping would count as memory of this process.
        with path.open("rb", 0) as file:
            for row in chunk.tolist():
                file.seek(row * store.row_bytes)
                image = np.frombuffer(file.read(store.row_bytes), dtype=np.uint8)
                if content_hash(image) != index["content_hash"][row]:
                    changed.append(row)

    try:
        map_in_threads(check, rows, workers, "verifying")
    except OSError as error:
        raise store.corrupt_error(f"{PIXELS} cannot be read: {error.strerror}") from None
    if changed:
        raise store.corrupt_error(f"{len(changed)} images in {PIXELS} are not as they were written")
