"""Standard output that is closed, full, or no longer read: the work goes on, and nothing is said.

What is written to files is not affected.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EXIT_CODE = 1  # of a program whose output was lost


class LossyOutput:
    """A text stream that drops what it cannot write.

    Args:
        stream: that it writes to, and whose other attributes it has.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.is_lost = False

    def write(self, text: str) -> int:
        """Write a text, or drop it."""
        try:
            self._stream.write(text)
        except OSError:
            self.is_lost = True
        return len(text)

    def flush(self) -> None:
        """Flush the stream, if it can be."""
        try:
            self._stream.flush()
        except OSError:
            self.is_lost = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def tolerate_lost_output() -> Iterator[None]:
    """Work without standard output where it is closed; exit by code 1 where it took not all."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed before the program began
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115, lasts to the end
    stream, output = sys.stdout, LossyOutput(sys.stdout)
    sys.stdout = output
    try:
        yield
    except SystemExit as stop:
        output.flush()
        if output.is_lost and not stop.code:
            raise SystemExit(EXIT_CODE) from None
        raise
    finally:
        output.flush()
        sys.stdout = stream
        if output.is_lost:  # else Python complains at its end of what it cannot flush
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if output.is_lost:
        sys.exit(EXIT_CODE)
