"""The stores of decoded images in a folder: listed and removed."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from filelock import Timeout

from deephash.data.files.decoded_store import INDEX, RECORD, lock_store

# The index of a store, and the bytes of its header and of an image. Only the first kind is still
# used; the records of the second lack a byte; the third is of version 0.2.
KINDS = {
    r"v(?!1-)\d+-\d+px-.+": (INDEX, 0, RECORD.itemsize),
    r"v1-\d+px-.+": (INDEX, 0, RECORD.itemsize - 1),
    r"[0-9a-f]{16}": ("contents.npy", 128, 8),
}
UNFINISHED = ".unfinished"  # of version 0.2


@dataclass(frozen=True)
class StoreSummary:
    """What lies in a store.

    Attributes:
        folder: of the store.
        images: number of images.
        bytes: size of its files.
        modified: when the last image was added.
    """

    folder: Path
    images: int
    bytes: int
    modified: datetime


def list_stores(decoded_dir: Path) -> Iterator[StoreSummary]:
    """Stores in a folder by name, also those of version 0.2; other folders are left out.

    Raises:
        OSError: the folder cannot be read.
    """
    for folder in sorted(decoded_dir.iterdir()) if decoded_dir.exists() else ():
        name = folder.name.removesuffix(UNFINISHED)
        for pattern, (index, header, record) in KINDS.items():
            if re.fullmatch(pattern, name) and (folder / index).is_file():
                status = (folder / index).stat()
                yield StoreSummary(
                    folder,
                    (status.st_size - header) // record,
                    sum(file.stat().st_size for file in folder.iterdir()),
                    datetime.fromtimestamp(status.st_mtime),
                )


def remove_store(folder: Path) -> bool:
    """Remove a store; a process that reads it keeps its images.

    Returns:
        Whether it was removed: not while a process adds images to it.

    Raises:
        OSError: it cannot be removed.
    """
    lock = lock_store(folder.with_name(folder.name.removesuffix(UNFINISHED)))
    try:
        with lock.acquire(timeout=0):
            shutil.rmtree(folder)
            Path(lock.lock_file).unlink(missing_ok=True)
    except Timeout:
        return False
    return True
