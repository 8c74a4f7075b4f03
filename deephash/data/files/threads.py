"""Work on many files in threads, with a progress bar on a terminal."""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from rich.progress import track

ROWS_PER_TASK = 64


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
