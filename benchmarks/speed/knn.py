"""Exact k-nearest-neighbour search against faiss's IndexBinaryFlat and against the processor.

    pip install -e '.[benchmarks]' && python -m benchmarks.speed.knn

Both search the same codes with the same number of threads, and must return the same distances;
faiss in its fastest mode and width (48 bits, or padded to 64). The limit is the rate of our
comparison over codes of one word in the first-level cache, where only the least distance is kept,
divided by the number of words of a code. Finished cells are kept in results/knn.json, so that a
stopped benchmark can be continued; delete the file to measure again. Writes results/knn.*. Memory
is read from /proc, on Linux only.
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

from benchmarks.machine import (
    REPEATS,
    describe_machine,
    load_matching_cells,
    machine_info,
    time_fastest,
    write_results,
)
from deephash.hamming import cpu, knn

K, NUM_CENTRES, FLIP_PROBABILITY = 100, 100, 0.15
CELLS = {  # items, bits, queries, clustered
    "1M, one query": (1_000_000, 64, 1, False),
    "1M": (1_000_000, 64, 1_000, False),
    "10M": (10_000_000, 64, 1_000, False),
    "10M, clustered": (10_000_000, 64, 1_000, True),
    "10M, 48 bits": (10_000_000, 48, 1_000, False),
    "10M, 128 bits": (10_000_000, 128, 1_000, False),
}

PackedCodes = npt.NDArray[np.uint64]


def main() -> None:
    """Measure the cells that are missing, and write the table after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    numba.set_num_threads(options.threads)
    faiss.omp_set_num_threads(options.threads)
    settings = {"threads": options.threads, "seed": options.seed, "k": K, "repeats": REPEATS}
    conditions = {**settings, **machine_info("numpy", "numba", "faiss-cpu")}
    cells = load_matching_cells("knn", conditions)
    for name, size in CELLS.items():
        if name not in cells:
            cells[name] = measure(*size, options)
            results = {"cells": cells, **conditions}
            write_results("knn", results, markdown(results))


def measure(
    items: int, bits: int, queries: int, clustered: bool, options: argparse.Namespace
) -> dict[str, float]:
    """Billions of comparisons per second of both searches, and the memory of ours."""
    rng = np.random.default_rng(options.seed)
    database = sample_codes(rng, items, bits, clustered)
    query = sample_codes(rng, queries, bits, clustered)
    knn(query, database[: 2 * K], k=K)  # compiles
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    memory_before = memory_mb("VmRSS")
    (_, distances), seconds = time_fastest(lambda: knn(query, database, k=K))
    memory = memory_mb("VmHWM") - memory_before
    widths = {bits, 64 * query.shape[1]}
    faiss_distances, faiss_seconds = min(
        (faiss_search(query, database, width) for width in widths), key=lambda result: result[1]
    )
    if not np.array_equal(distances, faiss_distances):
        raise AssertionError("deephash and faiss return different distances")
    pairs = queries * items / 1e9
    return {
        "deephash": pairs / seconds,
        "faiss": pairs / faiss_seconds,
        "limit": comparison_limit(options.threads) / query.shape[1],
        "queries_per_second": queries / seconds,
        "database_mb": database.nbytes / 1e6,
        "memory_mb": memory,
    }


def memory_mb(field: str) -> float:
    """Memory of this process in MB, from /proc: `VmRSS` now, `VmHWM` at its peak."""
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index(f"{field}:") + 1]) / 1024


def sample_codes(rng: np.random.Generator, count: int, bits: int, clustered: bool) -> PackedCodes:
    """Draw uniform codes, or codes around common centres, as trained ones are distributed."""
    masks = [np.uint64(2 ** min(64, bits - 64 * word) - 1) for word in range(-(-bits // 64))]
    if not clustered:
        return rng.integers(2**64, size=(count, len(masks)), dtype=np.uint64) & masks
    flips = np.zeros((count, len(masks)), np.uint64)
    for bit in range(bits):
        is_flipped = rng.random(count) < FLIP_PROBABILITY
        flips[:, bit // 64] |= is_flipped.astype(np.uint64) << np.uint64(bit)
    # The centres have a generator of their own: queries and database share them.
    centres = np.random.default_rng(1).integers(2**64, size=(NUM_CENTRES, 1), dtype=np.uint64)
    return centres[rng.integers(NUM_CENTRES, size=count)] ^ flips


def faiss_search(
    query: PackedCodes, database: PackedCodes, bits: int
) -> tuple[npt.NDArray[np.int32], float]:
    """Distances of the K nearest by IndexBinaryFlat, and the seconds of its faster mode."""

    def as_bytes(words: PackedCodes) -> npt.NDArray[np.uint8]:
        return np.ascontiguousarray(words.view(np.uint8)[:, : bits // 8])

    index: Any = faiss.IndexBinaryFlat(bits)
    index.add(as_bytes(database))
    best, distances = float("inf"), np.empty(0, np.int32)
    for use_heap in (True, False):
        index.use_heap = use_heap
        (distances, _), seconds = time_fastest(lambda: index.search(as_bytes(query), K))
        best = min(best, seconds)
    return distances, best


def comparison_limit(threads: int) -> float:
    """Billions of words compared per second in the first-level cache, for the least distance."""
    rounds, tile = 200_000, np.arange(2048, dtype=np.uint64)
    compare_in_cache(np.uint64(0), tile, 1, threads)  # compiles
    _, seconds = time_fastest(lambda: compare_in_cache(np.uint64(0), tile, rounds, threads))
    return len(tile) * rounds * threads / seconds / 1e9


@numba.njit(parallel=True)
def compare_in_cache(query, tile, rounds, threads):  # type: ignore[no-untyped-def]
    """The least distance over the tile, summed over rounds with different queries."""
    total = np.zeros(threads, np.uint64)
    for thread in numba.prange(threads):
        code = np.full(1, query)
        for _ in range(rounds):
            total[thread] += cpu.min_distance(code, tile, (0,))
            code[0] += np.uint64(1)
    return total


def markdown(results: dict[str, Any]) -> str:
    """The table as Markdown: rates in billions of comparisons per second."""
    lines = [
        "| database | deephash | faiss | ratio | limit | of the limit | queries/s | memory |",
        "|---|" + "---:|" * 7,
    ]
    for name, cell in results["cells"].items():
        bits = CELLS[name][1]
        rate = cell["deephash"]
        columns = [
            name if "bits" in name else f"{name}, {bits} bits",
            f"{rate:.1f}",
            f"{cell['faiss']:.1f}",
            f"{rate / cell['faiss']:.1f}",
            f"{cell['limit']:.1f}",
            f"{rate / cell['limit']:.0%}",
            f"{cell['queries_per_second']:,.0f}",
            f"{cell['memory_mb']:.0f} + {cell['database_mb']:.0f} MB",
        ]
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(
        [
            *lines,
            "",
            f"Billions of comparisons per second, k = {results['k']}, 1,000 queries unless noted, "
            f"fastest of {results['repeats']}; faiss does not split one query over threads. Random "
            f"codes; clustered: around {NUM_CENTRES} centres, with {FLIP_PROBABILITY:.0%} of the "
            "bits flipped. Memory: of the search + of the codes. "
            f"{describe_machine(results)} {results['threads']} threads, seed {results['seed']}.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
