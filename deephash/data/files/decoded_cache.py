"""Images in files, decoded once into a memory-mapped cache or anew whenever they are read."""

import errno
import hashlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL
import torch
from filelock import FileLock
from rich.progress import track
from torch import Tensor

from deephash.core.errors import UserError
from deephash.core.io import write_json
from deephash.data.files.decoding import BrokenImageError, decode_image
from deephash.data.files.fingerprints import (
    BROKEN,
    NOT_DECODED,
    ContentHashes,
    content_hash,
    fingerprint,
)
from deephash.data.files.names import escape_undecodable

ROWS_PER_TASK = 64

logger = logging.getLogger(__name__)


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
        workers: number of data loader processes that decode, if images are decoded when indexed.
    """

    paths: npt.NDArray[np.object_]
    size: int
    content_hashes: ContentHashes
    pixels: Tensor | None
    rows: Tensor
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
                image[:] = decode_image(path, self.size)
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
) -> tuple[ImageFiles, dict[int, str]]:
    """Decode each file once, to find broken files and duplicates and to cache the pixels.

    The results are stored in a folder below `decoded_dir` whose name depends on the files' names,
    sizes, times and 3 KB of the content of each, but not on where they lie. If several processes
    need the same folder, one decodes and the others wait. Interrupted decoding is resumed. A
    complete folder is only read. O(n) time; O(1) memory beyond the page cache.

    Args:
        paths: of the image files.
        size: side of the decoded images in pixels, see `decode_image`.
        cache_decoded: whether to store the pixels, 3 * size^2 bytes per image; if not, images are
            decoded again each time they are read.
        decoded_dir: folder for the results of this and other data sets.
        workers: number of threads here, and of data loader processes later.

    Returns:
        The images, and the reasons why some files are broken, by position in `paths`.

    Raises:
        UserError: `workers` is below 1, `decoded_dir` cannot be written to, or the stored results
            are corrupt.
    """
    if workers < 1:
        raise UserError(
            f"dataset.workers={workers}: must be at least 1, or null for the number of CPU cores."
        )
    cache = decoded_dir / _cache_key(paths, size, cache_decoded, workers)
    try:
        if not cache.is_dir():
            decoded_dir.mkdir(parents=True, exist_ok=True)
            with FileLock(cache.with_suffix(".lock")):
                if not cache.is_dir():
                    _decode_all(paths, size, cache_decoded, cache, workers)
    except OSError as error:
        gigabytes = f" ({len(paths) * 3 * size**2 / 1e9:,.1f} GB)" if cache_decoded else ""
        is_full = cache_decoded and error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise UserError(
            f"dataset.decoded_dir={decoded_dir} cannot be written to{gigabytes}: "
            f"{error.strerror}. Name another folder"
            f"{', or store no pixels: dataset.cache_decoded=false' * is_full}."
        ) from None
    try:
        content_hashes: ContentHashes = np.load(cache / "contents.npy")
        pixels = np.load(cache / "pixels.npy", mmap_mode="c") if cache_decoded else None
        broken = json.loads((cache / "broken.json").read_text())
    except (OSError, ValueError, EOFError):
        raise _corrupt_cache_error(cache) from None
    if pixels is not None:
        _verify(cache, pixels, content_hashes, workers)
    images = ImageFiles(
        paths=np.array([str(path) for path in paths], dtype=object),
        size=size,
        content_hashes=content_hashes,
        pixels=None if pixels is None else torch.from_numpy(pixels),
        rows=torch.arange(len(paths)),
        workers=workers,
    )
    return images, {int(position): reason for position, reason in broken.items()}


def map_in_threads(
    function: Callable[[npt.NDArray[np.int64]], None],
    rows: npt.NDArray[np.int64],
    workers: int,
    description: str,
) -> None:
    """Call `function` on chunks of `rows` in threads: Pillow and hashlib release the GIL."""
    chunks = np.array_split(rows, max(1, len(rows) // ROWS_PER_TASK))
    threads = ThreadPoolExecutor(workers)
    try:
        results: Iterator[None] = threads.map(function, chunks)
        for _ in track(
            results,
            description,
            total=len(chunks),
            disable=not sys.stdout.isatty(),
            transient=True,
        ):
            pass
    finally:
        threads.shutdown(cancel_futures=True)


def _cache_key(paths: Sequence[str | Path], size: int, cache_decoded: bool, workers: int) -> str:
    fingerprints = [b""] * len(paths)

    def fill(rows: npt.NDArray[np.int64]) -> None:
        for row in rows.tolist():
            fingerprints[row] = fingerprint(paths[row])

    map_in_threads(fill, np.arange(len(paths)), workers, "looking at files")
    digest = hashlib.sha256(f"{size} {cache_decoded} {PIL.__version__}".encode())
    digest.update(b"".join(fingerprints))
    return digest.hexdigest()[:16]


def _decode_all(
    paths: Sequence[str | Path], size: int, cache_decoded: bool, cache: Path, workers: int
) -> None:
    unfinished = cache.with_suffix(".unfinished")
    try:
        content_hashes, pixels = _open_arrays(unfinished, len(paths), size, cache_decoded)
    except (ValueError, EOFError):  # damaged, for example by a power failure: begin again
        shutil.rmtree(unfinished)
        content_hashes, pixels = _open_arrays(unfinished, len(paths), size, cache_decoded)
    pending = np.flatnonzero((content_hashes == NOT_DECODED) | (content_hashes == BROKEN))
    broken: dict[str, str] = {}

    def decode(rows: npt.NDArray[np.int64]) -> None:
        for row in rows.tolist():
            try:
                image = decode_image(paths[row], size)
            except BrokenImageError as error:
                broken[str(row)] = str(error)
                content_hashes[row] = BROKEN
                continue
            if pixels is not None:
                pixels[row] = image
            content_hashes[row] = content_hash(image)

    logger.info("decoding %s images into %s", f"{len(pending):,}", escape_undecodable(str(cache)))
    map_in_threads(decode, pending, workers, "decoding")
    content_hashes.flush()
    if pixels is not None:
        pixels.flush()
    write_json(unfinished / "broken.json", broken)
    unfinished.replace(cache)


def _open_arrays(
    unfinished: Path, count: int, size: int, cache_decoded: bool
) -> tuple[np.memmap, np.memmap | None]:
    unfinished.mkdir(exist_ok=True)
    content_hashes = _open_or_create(unfinished / "contents.npy", (count,), np.uint64)
    if not cache_decoded:
        return content_hashes, None
    shape = (count, size, size, 3)
    return content_hashes, _open_or_create(unfinished / "pixels.npy", shape, np.uint8)


def _open_or_create(path: Path, shape: tuple[int, ...], dtype: type) -> np.memmap:
    """Memory-map an array in a file; a new file gets its full size on the disk."""
    if not path.is_file():
        part = path.with_suffix(".part")
        array = np.lib.format.open_memmap(part, mode="w+", dtype=dtype, shape=shape)
        # Without the space, writing to the mapping would kill the process (SIGBUS).
        if hasattr(os, "posix_fallocate") and array.nbytes:
            with part.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, part.stat().st_size)
        part.replace(path)
    np.lib.format.open_memmap(path, mode="r")  # refuses a truncated file, which "r+" would extend
    return np.lib.format.open_memmap(path, mode="r+")


def _verify(cache: Path, pixels: np.memmap, content_hashes: ContentHashes, workers: int) -> None:
    """Check the stored pixels against their hashes.

    Raises:
        UserError: some differ, or the file is truncated.
    """
    path = cache / "pixels.npy"
    changed: list[int] = []

    def check(rows: npt.NDArray[np.int64]) -> None:
        # Read from the file, as the pages of a mapping would count as memory of this process.
        offset = pixels.offset + int(rows[0]) * pixels[0].nbytes
        content = np.fromfile(path, np.uint8, len(rows) * pixels[0].size, offset=offset)
        images = content.reshape(len(rows), -1)
        hashes = [content_hash(image) for image in images]
        is_intact = (content_hashes[rows] == hashes) | (content_hashes[rows] == BROKEN)
        changed.extend(rows[~is_intact].tolist())

    try:
        if len(pixels):
            map_in_threads(check, np.arange(len(pixels)), workers, "verifying")
    except (OSError, ValueError):
        raise _corrupt_cache_error(cache) from None
    if changed:
        raise UserError(
            f"{path} is corrupt: {len(changed)} images are not as they were written. Remove "
            f"{cache}, and the images are decoded again."
        )


def _corrupt_cache_error(cache: Path) -> UserError:
    return UserError(
        f"{cache} is corrupt: a file is missing, unreadable or truncated. Remove this folder, and "
        "the images are decoded again."
    )
