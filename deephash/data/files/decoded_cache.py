"""Images in files: decoded once into one memory-mapped file, or each time they are asked for."""

import errno
import hashlib
import json
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

ROWS_AT_ONCE = 64
LOOKED_AT = 1024  # bytes of each of three places of a file, to know it by
NOT_YET, BROKEN = 0, 1  # in the place of a content hash

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class ImageFiles:
    """What a tensor of images is, uint8 (n, 3, size, size), for images that lie in files.

    In memory the channels of what it gives are last, as decoders write and convolutions want them.

    Attributes:
        paths: of the files.
        size: side of the images in pixels.
        contents: of each image 64 bits of its pixels' SHA-1, uint64 (n,).
        pixels: uint8 (m, size, size, 3) of a memory-mapped file; None decodes when asked.
        rows: int64 (n,), which of `pixels` they are.
        workers: processes that decode while a net is trained.
    """

    paths: npt.NDArray[np.object_]
    size: int
    contents: Hashes
    pixels: Tensor | None
    rows: Tensor
    workers: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """As a tensor's."""
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
                raise UserError(f"{path}: {error}. It was whole when the run began.") from None
        return torch.from_numpy(images).permute(0, 3, 1, 2)

    def only(self, kept: npt.NDArray[np.bool_]) -> "ImageFiles":
        """Some of them."""
        rows = self.rows[torch.from_numpy(kept)]
        return replace(self, paths=self.paths[kept], contents=self.contents[kept], rows=rows)


def decode_files(
    paths: Sequence[str | Path], *, size: int, keep: bool, folder: Path, workers: int
) -> tuple[ImageFiles, dict[int, str]]:
    """Decode each file once: to know which are broken and which are copies, and to keep them.

    What is found lies below `folder`, under a name that follows from the files' names, sizes and
    times and some of their content, 3 KB of each, wherever they lie. Other processes that ask for
    the same wait; what was stopped goes on. What is complete is only read. O(n) time; O(1) memory
    beyond the page cache.

    Args:
        paths: of the files.
        size: side in pixels, see `decoded`.
        keep: the pixels as well, 3 * size^2 bytes an image.
        folder: for the results of this and other data sets.
        workers: threads here; later processes, where the pixels are not kept.

    Returns:
        the images, and what is wrong with those that are broken, by position.

    Raises:
        UserError: there are no workers, the folder cannot be written to, or what lies there is
            corrupt.
    """
    if workers < 1:
        raise UserError(
            f"dataset.workers={workers}: give a number from 1, or null for that of the cores."
        )
    place = folder / _key(paths, size, keep, workers)
    try:
        if not place.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(place.with_suffix(".lock")):
                if not place.is_dir():
                    _decode(paths, size, keep, place, workers)
    except OSError as error:
        wanted = f" ({len(paths) * 3 * size**2 / 1e9:,.1f} GB)" if keep else ""
        full = keep and error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise UserError(
            f"dataset.decoded_dir={folder} cannot be written to{wanted}: {error.strerror}. "
            f"Name another{', or keep no pixels by dataset.cache_decoded=false' * full}."
        ) from None
    try:
        contents: Hashes = np.load(place / "contents.npy")
        pixels = _mapped(place / "pixels.npy", contents, workers) if keep else None
        broken = json.loads((place / "broken.json").read_text())
    except (OSError, ValueError, EOFError):
        raise UserError(
            f"{place} is corrupt: a file of it is missing, cannot be read or is not whole. "
            "Remove this folder, and the images are decoded again."
        ) from None
    names = np.array([str(path) for path in paths], dtype=object)
    images = ImageFiles(names, size, contents, pixels, torch.arange(len(paths)), workers)
    return images, {int(position): reason for position, reason in broken.items()}


def _key(paths: Sequence[str | Path], size: int, keep: bool, workers: int) -> str:
    marks = [b""] * len(paths)

    def look(rows: npt.NDArray[np.int64]) -> None:
        for row in rows.tolist():
            marks[row] = _mark(paths[row])

    in_parallel(look, np.arange(len(paths)), workers, "looking at files")
    digest = hashlib.sha256(f"{size} {keep} {PIL.__version__}".encode())
    digest.update(b"".join(marks))
    return digest.hexdigest()[:16]


def _mark(path: str | Path) -> bytes:
    """What a file is known by: its name, size and time; and some content, as archives set times."""
    name = os.fsencode(os.path.basename(path))
    try:
        return hashlib.sha256(name + b"\0" + _look(path)).digest()
    except OSError as error:  # it is told of when the file is decoded
        return hashlib.sha256(name + b"\0%d" % (error.errno or 0)).digest()


def _look(path: str | Path) -> bytes:
    file = os.open(path, os.O_RDONLY)  # half the time of `open`
    try:
        status = os.fstat(file)
        starts = (0, status.st_size // 2, max(0, status.st_size - LOOKED_AT))
        some = b"".join(os.pread(file, LOOKED_AT, start) for start in starts)
        return b"%d %d\0%b" % (status.st_size, status.st_mtime_ns, some)
    finally:
        os.close(file)


def _decode(paths: Sequence[str | Path], size: int, keep: bool, place: Path, workers: int) -> None:
    unfinished = place.with_suffix(".unfinished")
    try:
        contents, pixels = _begun(unfinished, len(paths), size, keep)
    except (ValueError, EOFError):  # the machine went down as they were written
        shutil.rmtree(unfinished)
        contents, pixels = _begun(unfinished, len(paths), size, keep)
    todo = np.flatnonzero((contents == NOT_YET) | (contents == BROKEN))
    broken: dict[str, str] = {}

    def decode(rows: npt.NDArray[np.int64]) -> None:
        for row in rows.tolist():
            try:
                image = decode_image(paths[row], size)
            except BrokenImageError as error:
                broken[str(row)] = str(error)
                contents[row] = BROKEN
                continue
            if pixels is not None:
                pixels[row] = image
            contents[row] = content_hash(image)

    print(f"decoding {len(todo):,} images: {place}")
    in_parallel(decode, todo, workers, "decoding")
    contents.flush()  # type: ignore[attr-defined]
    if pixels is not None:
        pixels.flush()  # type: ignore[attr-defined]
    write_json(unfinished / "broken.json", broken)
    unfinished.replace(place)


def in_parallel(
    work: Callable[[npt.NDArray[np.int64]], None],
    rows: npt.NDArray[np.int64],
    workers: int,
    what: str,
) -> None:
    """Call `work` on some rows at a time, in threads: Pillow and hashlib release Python's lock."""
    some = np.array_split(rows, max(1, len(rows) // ROWS_AT_ONCE))
    threads = ThreadPoolExecutor(workers)
    try:
        done: Iterator[None] = threads.map(work, some)
        shown = track(done, what, total=len(some), disable=not sys.stdout.isatty(), transient=True)
        for _ in shown:
            pass
    finally:
        threads.shutdown(cancel_futures=True)


def content_hash(image: npt.NDArray[np.uint8]) -> int:
    """64 bits of the SHA-1 of an image's pixels: of a million images two differ by 1 - 3e-8."""
    first = hashlib.sha1(np.ascontiguousarray(image).data, usedforsecurity=False).digest()[:8]
    return max(int.from_bytes(first), BROKEN + 1)


def _begun(
    unfinished: Path, count: int, size: int, keep: bool
) -> tuple[npt.NDArray, npt.NDArray | None]:
    unfinished.mkdir(exist_ok=True)
    contents = _file(unfinished / "contents.npy", (count,), np.uint64)
    shape = (count, size, size, 3)
    return contents, _file(unfinished / "pixels.npy", shape, np.uint8) if keep else None


def _file(path: Path, shape: tuple[int, ...], dtype: type) -> npt.NDArray:
    """A memory-mapped array in a file, which is made if there is none, with room on the disk."""
    if not path.is_file():
        part = path.with_suffix(".part")
        array = np.lib.format.open_memmap(part, mode="w+", dtype=dtype, shape=shape)
        if hasattr(os, "posix_fallocate") and array.nbytes:  # a full disk would kill the process
            with part.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, part.stat().st_size)
        part.replace(path)
    np.lib.format.open_memmap(path, mode="r")  # refuses a file cut short, which "r+" makes longer
    return np.lib.format.open_memmap(path, mode="r+")


def _mapped(path: Path, contents: Hashes, workers: int) -> Tensor:
    """The pixels of a file, memory-mapped, once they are seen to be what was written.

    Raises:
        UserError: they are not.
    """
    pixels = np.load(path, mmap_mode="c")  # a private mapping: torch wants to be able to write
    wrong = []

    def verify(rows: npt.NDArray[np.int64]) -> None:
        offset = pixels.offset + int(rows[0]) * pixels[0].nbytes  # read, lest the mapping grow
        read = np.fromfile(path, np.uint8, len(rows) * pixels[0].size, offset=offset)
        images = read.reshape(len(rows), -1)
        hashes = [content_hash(image) for image in images]
        whole = (contents[rows] == hashes) | (contents[rows] == BROKEN)
        wrong.extend(rows[~whole].tolist())

    if len(pixels):
        in_parallel(verify, np.arange(len(pixels)), workers, "verifying")
    if wrong:
        raise UserError(
            f"{path} is corrupt: {len(wrong)} of its images are not those that were written. "
            "Remove its folder, and they are decoded again."
        )
    return torch.from_numpy(pixels)
