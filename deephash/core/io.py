"""Atomic file writes: neither a reader nor a killed process leaves or sees a partial file."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; move it to `path` on success, remove it on error.

    Missing parent folders are created.

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
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write `values` as indented JSON, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n")
