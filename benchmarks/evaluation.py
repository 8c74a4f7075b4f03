"""Time the exact evaluation of a CIFAR-10 sized run against the loop of public code.

`python benchmarks/evaluation.py` writes results/evaluation.json and results/evaluation.md.
"""

import argparse
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from machine import described, machine, write

from deephash.codes import pack
from deephash.hamming import distance_histogram
from deephash.metrics import code_health
from deephash.ranking import Ranking, evaluate_ranking

QUERIES, ITEMS, BITS, CLASSES, FLIPPED = 10_000, 60_000, 48, 10, 0.2
KS, RADIUS = (100, 1000), 2
LOOP_QUERIES = 200  # of the public loop, whose time is scaled to all queries
REPEATS = 3  # the fastest counts

T = TypeVar("T")


def main() -> None:
    """Measure, and write the figures as JSON and as a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    figures = measure(options.seed)
    figures |= {"threads": options.threads, "seed": options.seed, **machine("numpy", "numba")}
    write("evaluation", figures, markdown(figures))


def measure(seed: int) -> dict[str, object]:
    """Seconds by what was computed, and the mAP that each way found."""
    rng = np.random.default_rng(seed)
    centres = rng.choice([-1, 1], (CLASSES, BITS))

    def side(count: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        labels = rng.integers(CLASSES, size=count)
        flips = np.where(rng.random((count, BITS)) < FLIPPED, -1, 1)
        return (centres[labels] * flips).astype(np.float32), labels

    query_codes, query_labels = side(QUERIES)
    database_codes, database_labels = side(ITEMS)
    database = pack(database_codes)
    pairs = (pack(query_codes), query_labels, database, database_labels, BITS)

    def evaluated(rows: slice, ks: tuple[int, ...], *, database_order: bool) -> Ranking:
        some = (pairs[0][rows], query_labels[rows], *pairs[2:])
        return evaluate_ranking(*some, ks=ks, radius=RADIUS, database_order=database_order)

    everything = slice(None)
    for database_order in (False, True):  # compiles
        evaluated(slice(4), KS, database_order=database_order)
    _, histogram_seconds = timed(lambda: distance_histogram(*pairs))
    _, exact_seconds = timed(lambda: evaluated(everything, KS, database_order=False))
    ranking, all_seconds = timed(lambda: evaluated(everything, KS, database_order=True))
    _, health_seconds = timed(lambda: code_health(database, BITS))
    few = slice(0, LOOP_QUERIES)
    loop_map, loop_seconds = timed(
        lambda: public_loop(query_codes[few], query_labels[few], database_codes, database_labels)
    )
    exact = evaluated(few, (), database_order=False)
    return {
        "seconds": {
            "histogram": histogram_seconds,
            "all figures but those in database order": exact_seconds,
            "all figures": all_seconds,
            "code health": health_seconds,
            "public loop, scaled": loop_seconds * QUERIES / LOOP_QUERIES,
        },
        "map": {name: v for name, v in ranking.scalars.items() if name.startswith("map")},
        "map_of_the_loop_queries": {
            "public loop": loop_map,
            **{name: exact.scalars[name] for name in ("map", "map_best", "map_worst")},
        },
    }


def public_loop(
    query_codes: npt.NDArray[np.float32],
    query_labels: npt.NDArray[np.int64],
    database_codes: npt.NDArray[np.float32],
    database_labels: npt.NDArray[np.int64],
) -> float:
    """The mAP as public code computes it: a query at a time, float product, unstable sort."""
    total = 0.0
    for code, label in zip(query_codes, query_labels, strict=True):
        distance = 0.5 * (BITS - database_codes @ code)
        relevant = (database_labels == label)[np.argsort(distance)]
        ranks = np.flatnonzero(relevant) + 1
        total += float(np.mean(np.arange(1, len(ranks) + 1) / ranks))
    return total / len(query_codes)


def timed(compute: Callable[[], T]) -> tuple[T, float]:
    """What it computes, and the seconds of the fastest of some repeats."""
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        value = compute()
        seconds.append(time.perf_counter() - began)
    return value, min(seconds)


def markdown(figures: dict[str, Any]) -> str:
    """The figures as a table."""
    rows = "".join(f"| {name} | {value:.3f} |\n" for name, value in figures["seconds"].items())
    loop = figures["map_of_the_loop_queries"]
    return (
        f"{QUERIES:,} queries x {ITEMS:,} items, {BITS} bits, {CLASSES} classes, "
        f"k = {' and '.join(map(str, KS))}; random codes, seed {figures['seed']}.\n"
        f"{described(figures)} {figures['threads']} threads, load average "
        f"{figures['load_average']}.\n"
        f"Fastest of {REPEATS}, after compilation. The public loop was timed on "
        f"{LOOP_QUERIES} queries and scaled to all.\n\n"
        f"| what | seconds |\n|---|---:|\n{rows}\n"
        f"On these {LOOP_QUERIES} queries the loop finds a mAP of "
        f"{loop['public loop']:.4f}, by an order of ties that its sort happens to give; the "
        f"expectation over all orders is {loop['map']:.4f}, the best {loop['map_best']:.4f}, the "
        f"worst {loop['map_worst']:.4f}.\n"
    )


if __name__ == "__main__":
    main()
