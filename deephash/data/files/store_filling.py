"""Decoding of the images that a store does not hold yet."""

import errno
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import Timeout

from deephash.core.errors import UserError
from deephash.data.files.decoded_store import DecodedStore, Records, lock_store
from deephash.data.files.decoding import MAX_PIXELS, BrokenImageError, DecodedFile, decode_file
from deephash.data.files.names import escape_undecodable
from deephash.data.files.pixel_range import PixelRange
from deephash.data.files.threads import map_in_threads

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

logger = logging.getLogger(__name__)


@dataclass
class StoreFiller:
    """Decodes files into a store.

    Attributes:
        store: of the decoded images.
        paths: of the files, by fingerprint.
        pixel_range: see `decode_image`.
        max_pixels: see `decode_image`.
        broken: why files are broken, by fingerprint.
    """

    store: DecodedStore
    paths: Mapping[bytes, str | Path]
    pixel_range: PixelRange
    max_pixels: int | None
    broken: dict[bytes, str] = field(default_factory=dict)

    def fill(self, workers: int) -> tuple[Records, dict[bytes, int]]:
        """Decode the files that are not in the store.

        Where all of these are broken, nothing is written, and the folder need not be writable.

        Returns:
            The records of the store, and the row of each image by its fingerprint.

        Raises:
            UserError: the store is corrupt or cannot be written to.
        """
        index, rows = self.find_rows()
        missing = self._find_missing(rows)
        decoded: dict[bytes, DecodedFile] = {}
        for fingerprint in missing:
            if self._decode(fingerprint, decoded.__setitem__):
                break
        if not decoded:
            return index, rows
        with self._explain_errors(len(missing)):
            self.store.folder.parent.mkdir(parents=True, exist_ok=True)
            with self._hold_lock():
                self._append(self._find_missing(self.find_rows()[1]), decoded, workers)
        return self.find_rows()

    def find_rows(self) -> tuple[Records, dict[bytes, int]]:
        """The records of the store, and the row of each image by its fingerprint."""
        index = self.store.read_index()
        rows = {fingerprint: row for row, fingerprint in enumerate(index["fingerprint"].tolist())}
        # They were decoded under a higher limit.
        for row in np.flatnonzero(index["file_pixels"] > (self.max_pixels or MAX_PIXELS)):
            rows.pop(index["fingerprint"][row].tobytes(), None)
        return index, rows

    def _find_missing(self, rows: Mapping[bytes, int]) -> list[bytes]:
        return [value for value in self.paths if value not in rows and value not in self.broken]

    def _decode(self, fingerprint: bytes, use: Callable[[bytes, DecodedFile], None]) -> bool:
        """Decode a file and use it; or note that it is broken, and return false."""
        try:
            path = self.paths[fingerprint]
            decoded = decode_file(path, self.store.size, self.pixel_range, self.max_pixels)
        except BrokenImageError as error:
            self.broken[fingerprint] = str(error)
            return False
        use(fingerprint, decoded)
        return True

    def _append(
        self, missing: Sequence[bytes], decoded: Mapping[bytes, DecodedFile], workers: int
    ) -> None:
        if not missing:
            return
        folder = escape_undecodable(str(self.store.folder))
        logger.info("decoding %s images into %s", f"{len(missing):,}", folder)
        with self.store.open_writer(len(missing)) as writer:

            def append(rows: npt.NDArray[np.int64]) -> None:
                for fingerprint in (missing[row] for row in rows.tolist()):
                    if fingerprint in decoded:
                        writer.append(fingerprint, decoded[fingerprint])
                    else:
                        self._decode(fingerprint, writer.append)

            map_in_threads(append, np.arange(len(missing)), workers, "decoding")

    @contextmanager
    def _hold_lock(self) -> Iterator[None]:
        lock = lock_store(self.store.folder)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            folder = escape_undecodable(str(self.store.folder))
            logger.info("waiting for another process that decodes into %s", folder)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _explain_errors(self, count: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            keeps_pixels = self.store.keeps_pixels
            gigabytes = f" ({count * self.store.row_bytes / 1e9:,.1f} GB)" if keeps_pixels else ""
            is_full = keeps_pixels and error.errno in NO_SPACE
            raise UserError(
                f"dataset.decoded_dir={self.store.folder.parent} cannot be written to{gigabytes}: "
                f"{error.strerror}. Name another folder"
                f"{', or store no pixels: dataset.cache_decoded=false' * is_full}."
            ) from None
