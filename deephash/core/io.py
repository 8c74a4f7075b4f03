"""Files that are whole: written atomically, and sealed by a checksum where damage must be noticed.

Neither a reader nor a killed process leaves or sees a partial file.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SEAL = b"sha256:"  # the comment of a sealed zip file, before the digest of all that precedes it
SEAL_LENGTH = len(SEAL) + 64
END_OF_ZIP = b"PK\x05\x06"  # of the last record of a zip file, 22 bytes and the comment
END_LENGTH = 22


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; move it to `path` on success, remove it on error.

    Missing parent folders are created.

    Raises:
        OSError: the file cannot be written; it names `path` where it would name none.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with atomic_write(folder / "note.txt") as temporary:
        ...     _ = temporary.write_text("done")
        >>> [path.name for path in folder.iterdir()]
        ['note.txt']
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last because some writers choose the file format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.filename in (None, str(temporary)):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def remove_partial_files(folder: Path, stem: str = "*") -> None:
    """Remove what `atomic_write` left below a folder when its process was killed.

    Args:
        folder: where no process writes such files now.
        stem: of the files' names; by default all.
    """
    for path in folder.rglob(f".{stem}.part*"):
        if re.search(r"\.\d+\.part(\.\w+)?$", path.name):
            path.unlink(missing_ok=True)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write `values` as indented JSON, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n")


def seal_zip(path: Path) -> None:
    """Put a SHA-256 of a zip file, such as torch writes, into its comment.

    Args:
        path: of a zip file without a comment.
    """
    with path.open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(SEAL_LENGTH.to_bytes(2, "little"))
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.write(SEAL + digest.encode())


def is_undamaged(path: Path) -> bool:
    """Whether a zip file is as it was sealed; one that was never sealed counts as undamaged."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        remaining = file.seek(0, os.SEEK_END) - SEAL_LENGTH
        file.seek(0)
        while remaining > 0 and (block := file.read(min(remaining, 1 << 20))):
            digest.update(block)
            remaining -= len(block)
        seal = file.read()
    if seal.startswith(SEAL):
        return seal == SEAL + digest.hexdigest().encode()
    return seal[-END_LENGTH:].startswith(END_OF_ZIP) and seal.endswith(b"\0\0")
