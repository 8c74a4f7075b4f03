"""Decoded images on the disk, found again image by image by the fingerprints of their files.

A store is a folder of two files that only grow: `pixels.bin`, a row for each image, and
`index.bin`, a record for each row. A record is written after its row, so that a killed process
leaves at most the beginning of one of them, which the next one overwrites.
"""

import os
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL
from filelock import FileLock

from deephash.core.errors import UserError
from deephash.data.files.decoding import DecodedFile
from deephash.data.files.fingerprints import FINGERPRINT_BYTES, content_hash
from deephash.data.files.pixel_range import PixelRange

INDEX, PIXELS = "index.bin", "pixels.bin"
VERSION = 2  # to be raised when `decode_image` gives other pixels, or records change
CHECKSUM_BYTES = 4
NO_RANGE = (1, 0)  # stands for the range of values of a file that is not of 16 bits
RECORD = np.dtype(
    [
        ("fingerprint", f"V{FINGERPRINT_BYTES}"),
        ("content_hash", "<u8"),
        ("file_pixels", "<u8"),
        ("lowest", "<u2"),
        ("highest", "<u2"),
        ("has_outliers", "?"),
        ("checksum", "<u4"),  # of the other fields
    ]
)

Records = npt.NDArray[np.void]  # (n,) of RECORD


@dataclass(frozen=True)
class DecodedStore:
    """The images that are decoded in one way.

    Attributes:
        folder: of the two files; it may not exist yet.
        size: side of the images in pixels.
        keeps_pixels: whether the rows are kept, or only the records.
    """

    folder: Path
    size: int
    keeps_pixels: bool

    @property
    def row_bytes(self) -> int:
        """Size of a row in `pixels.bin`."""
        return 3 * self.size**2 if self.keeps_pixels else 0

    def read_index(self) -> Records:
        """The records of all rows; none if the folder is not there.

        Raises:
            UserError: it cannot be read.
        """
        try:
            content = (self.folder / INDEX).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            content = b""
        except OSError as error:
            raise self.corrupt_error(f"{INDEX} cannot be read: {error.strerror}") from None
        return np.frombuffer(content, RECORD, len(content) // RECORD.itemsize)

    def map_pixels(self, count: int) -> npt.NDArray[np.uint8]:
        """Memory-map the first `count` rows, uint8 (count, size, size, 3).

        Raises:
            UserError: the file is missing or shorter.
        """
        shape = (count, self.size, self.size, 3)
        if not count:
            return np.empty(shape, dtype=np.uint8)
        try:
            return np.memmap(self.folder / PIXELS, np.uint8, "c", shape=shape)
        except (OSError, ValueError):
            raise self.corrupt_error(f"{PIXELS} is missing, unreadable or truncated") from None

    @contextmanager
    def open_writer(self, max_count: int) -> Iterator["StoreWriter"]:
        """Open the store to append up to `max_count` rows; call it with the lock held.

        Raises:
            OSError: the folder cannot be written to, or there is no space for so many rows.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        count = len(self.read_index())
        paths = [self.folder / INDEX, self.folder / PIXELS]
        for path in paths:
            path.touch()
        with paths[0].open("r+b", 0) as index, paths[1].open("r+b", 0) as pixels:
            writer = StoreWriter(index.fileno(), pixels.fileno(), self.row_bytes, count)
            try:
                # Take the space at once, to fail before the work and not after it.
                if self.row_bytes and hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(pixels.fileno(), 0, (count + max_count) * self.row_bytes)
                yield writer
            finally:
                pixels.truncate(writer.count * self.row_bytes)
                index.truncate(writer.count * RECORD.itemsize)
                os.fsync(pixels)
                os.fsync(index)

    def corrupt_error(self, problem: str) -> UserError:
        """The error that says what to do about a damaged store."""
        return UserError(
            f"{self.folder} is corrupt: {problem}. Remove this folder, and the images are decoded "
            "again."
        )


class StoreWriter:
    """Appends rows; threads may share it.

    Attributes:
        count: number of rows so far.
    """

    def __init__(self, index: int, pixels: int, row_bytes: int, count: int) -> None:
        self.count = count
        self._index, self._pixels, self._row_bytes = index, pixels, row_bytes
        self._lock = threading.Lock()

    def append(self, fingerprint: bytes, decoded: DecodedFile) -> None:
        """Append the image of the file with this fingerprint.

        Raises:
            OSError: it cannot be written.
        """
        image = np.ascontiguousarray(decoded.pixels)
        record = _make_record(fingerprint, content_hash(image), decoded)
        with self._lock:
            if self._row_bytes:
                _write(self._pixels, image.tobytes(), self.count * self._row_bytes)
            _write(self._index, record, self.count * RECORD.itemsize)
            self.count += 1


def store_of(
    decoded_dir: Path, *, size: int, keeps_pixels: bool, pixel_range: PixelRange
) -> DecodedStore:
    """The store of the images that are decoded in this way, by this version of Pillow."""
    if isinstance(pixel_range, str):
        values: str = pixel_range
    else:
        values = "..".join(f"{bound:.17g}" for bound in pixel_range)
    name = f"v{VERSION}-{size}px-{values}-pillow{PIL.__version__}"
    return DecodedStore(
        decoded_dir / (name if keeps_pixels else f"{name}-hashes"), size, keeps_pixels
    )


def lock_store(folder: Path) -> FileLock:
    """The lock of those who append to the store in `folder` or remove it, beside the folder."""
    return FileLock(folder.with_name(f"{folder.name}.lock"))


def are_intact(records: Records) -> bool:
    """Whether all records are as they were written."""
    content, length = records.tobytes(), RECORD.itemsize
    return all(
        checksum == zlib.crc32(content[row * length : (row + 1) * length - CHECKSUM_BYTES])
        for row, checksum in enumerate(records["checksum"].tolist())
    )


def _make_record(fingerprint: bytes, content: int, decoded: DecodedFile) -> bytes:
    value_range = decoded.value_range or NO_RANGE
    values = (*value_range, decoded.has_outliers)
    record = np.array((fingerprint, content, decoded.file_pixels, *values, 0), dtype=RECORD)
    record["checksum"] = zlib.crc32(record.tobytes()[:-CHECKSUM_BYTES])
    return record.tobytes()


def _write(file: int, content: bytes, offset: int) -> None:
    """Write all of `content`: where little space is left, `pwrite` writes a part."""
    written = 0
    while written < len(content):
        written += os.pwrite(file, content[written:], offset + written)
