"""Exact k-nearest-neighbour search against faiss's IndexBinaryFlat and against the processor.

    pip install -e '.[benchmarks]' && python benchmarks/knn.py

Both search the same codes, on the same threads, and must find the same distances; faiss in the mode
and at the width (48 bits, or padded to 64) that it is fastest in. The limit is the rate at which
our comparison goes over codes of one word that never leave the first-level cache, keeping the least
distance, divided by the words of a code. Finished cells are kept in results/knn.json, so a stopped
benchmark goes on; delete the file to measure anew. Writes results/knn.json and results/knn.md.
Reads its memory as Linux tells it.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import faiss
import numba
import numpy as np
import numpy.typing as npt
import torch
from machine import FASTEST_OF, described, finished, machine, timed, write

from deephash.hamming import cpu, knn

K, CENTRES, FLIPPED = 100, 100, 0.15
CELLS = {  # items, bits, queries, clustered
    "1M, one query": (1_000_000, 64, 1, False),
    "1M": (1_000_000, 64, 1_000, False),
    "10M": (10_000_000, 64, 1_000, False),
    "10M, clustered": (10_000_000, 64, 1_000, True),
    "10M, 48 bits": (10_000_000, 48, 1_000, False),
    "10M, 128 bits": (10_000_000, 128, 1_000, False),
}

Words = npt.NDArray[np.uint64]


def main() -> None:
    """Measure each cell that is not finished, and write the table after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    numba.set_num_threads(options.threads)
    faiss.omp_set_num_threads(options.threads)
    settings = {"threads": options.threads, "seed": options.seed, "k": K, "repeats": FASTEST_OF}
    where = {**settings, **machine("numpy", "numba", "faiss-cpu")}
    cells = finished("knn", where)
    for name, cell in CELLS.items():
        if name not in cells:
            cells[name] = measure(*cell, options)
            figures = {"cells": cells, **where}
            write("knn", figures, markdown(figures))


def measure(
    items: int, bits: int, queries: int, clustered: bool, options: argparse.Namespace
) -> dict[str, float]:
    """Billions of comparisons a second of each way, and the memory that ours took."""
    rng = np.random.default_rng(options.seed)
    database, query = codes(rng, items, bits, clustered), codes(rng, queries, bits, clustered)
    knn(query, database[: 2 * K], k=K)  # compiles
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory_mb("VmRSS")
    (_, ours), seconds = timed(lambda: knn(query, database, k=K))
    memory = memory_mb("VmHWM") - before
    widths = {bits, 64 * query.shape[1]}
    theirs, faiss_seconds = min(
        (faiss_search(query, database, width) for width in widths), key=lambda found: found[1]
    )
    if not np.array_equal(ours, theirs):
        raise AssertionError("the two searches found different distances")
    pairs = queries * items / 1e9
    return {
        "deephash": pairs / seconds,
        "faiss": pairs / faiss_seconds,
        "limit": limit(options.threads) / query.shape[1],
        "queries_per_second": queries / seconds,
        "database_mb": database.nbytes / 1e6,
        "memory_mb": memory,
    }


def memory_mb(what: str) -> float:
    """Of this process, as Linux tells it: VmRSS now, VmHWM at its peak."""
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index(f"{what}:") + 1]) / 1024


def codes(rng: np.random.Generator, count: int, bits: int, clustered: bool) -> Words:
    """Packed random codes, or such around common centres, as trained codes lie."""
    padding = [np.uint64(2 ** min(64, bits - 64 * word) - 1) for word in range(-(-bits // 64))]

    def uniform(rows: int) -> Words:
        return rng.integers(2**64, size=(rows, len(padding)), dtype=np.uint64) & padding

    if not clustered:
        return uniform(count)
    flipped = np.zeros((count, len(padding)), np.uint64)
    for bit in range(bits):
        flipped[:, bit // 64] |= (rng.random(count) < FLIPPED).astype(np.uint64) << np.uint64(bit)
    # The centres come from a generator of their own: queries and database share them.
    centres = np.random.default_rng(1).integers(2**64, size=(CENTRES, 1), dtype=np.uint64)
    return centres[rng.integers(CENTRES, size=count)] ^ flipped


def faiss_search(query: Words, database: Words, bits: int) -> tuple[npt.NDArray[np.int32], float]:
    """Distances of the nearest by IndexBinaryFlat, and the seconds of its faster mode."""

    def octets(words: Words) -> npt.NDArray[np.uint8]:
        return np.ascontiguousarray(words.view(np.uint8)[:, : bits // 8])

    index: Any = faiss.IndexBinaryFlat(bits)
    index.add(octets(database))
    best, distances = float("inf"), np.empty(0, np.int32)
    for use_heap in (True, False):
        index.use_heap = use_heap
        (distances, _), seconds = timed(lambda: index.search(octets(query), K))
        best = min(best, seconds)
    return distances, best


def limit(threads: int) -> float:
    """Billions of words a second compared in the first-level cache, keeping the least distance."""
    rounds, tile = 200_000, np.arange(2048, dtype=np.uint64)
    compare_in_cache(np.uint64(0), tile, 1, threads)  # compiles
    _, seconds = timed(lambda: compare_in_cache(np.uint64(0), tile, rounds, threads))
    return len(tile) * rounds * threads / seconds / 1e9


@numba.njit(parallel=True)
def compare_in_cache(query, tile, rounds, threads):  # type: ignore[no-untyped-def]
    """The least distances over the tile, summed over rounds in which the query changes."""
    total = np.zeros(threads, np.uint64)
    for thread in numba.prange(threads):
        changing = np.full(1, query)
        for _ in range(rounds):
            total[thread] += cpu.least_distance(changing, tile, (0,))
            changing[0] += np.uint64(1)
    return total


def markdown(figures: dict[str, Any]) -> str:
    """The table: rates in billions of comparisons a second."""
    lines = [
        "| database | deephash | faiss | ratio | limit | of the limit | queries/s | memory |",
        "|---|" + "---:|" * 7,
    ]
    for name, cell in figures["cells"].items():
        bits = CELLS[name][1]
        ours = cell["deephash"]
        columns = [
            name if "bits" in name else f"{name}, {bits} bits",
            f"{ours:.1f}",
            f"{cell['faiss']:.1f}",
            f"{ours / cell['faiss']:.1f}",
            f"{cell['limit']:.1f}",
            f"{ours / cell['limit']:.0%}",
            f"{cell['queries_per_second']:,.0f}",
            f"{cell['memory_mb']:.0f} + {cell['database_mb']:.0f} MB",
        ]
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(
        [
            *lines,
            "",
            f"Billions of comparisons a second, k = {figures['k']}, 1,000 queries unless said, "
            f"fastest of {figures['repeats']}; faiss does not split one query over threads. Random "
            f"codes, clustered: {CENTRES} centres, "
            f"{FLIPPED:.0%} of the bits flipped. Memory: that of the search, and of the codes. "
            f"{described(figures)} {figures['threads']} threads, seed {figures['seed']}.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
