"""Time the exact evaluation of a CIFAR-10 sized run against the loop of public code.

`python benchmarks/evaluation.py` writes results/evaluation.json and results/evaluation.md.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np
import numpy.typing as npt
import torch

from deephash.codes import pack
from deephash.hamming import distance_histogram
from deephash.metrics import Ranking, code_health, evaluate_ranking

QUERIES, ITEMS, BITS, CLASSES, FLIPPED = 10_000, 60_000, 48, 10, 0.2
KS, RADIUS = (100, 1000), 2
LOOP_QUERIES = 200  # of the public loop, whose time is scaled to all queries
REPEATS = 3  # the fastest counts

T = TypeVar("T")


def main() -> None:
    """Measure, and write the figures as JSON and as a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    results = Path(__file__).parent / "results"
    parser.add_argument("--out", type=Path, default=results, help="folder for the results")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    options = parser.parse_args()
    numba.set_num_threads(options.threads)
    torch.set_num_threads(options.threads)
    figures = measure(options.seed) | {"threads": options.threads, "seed": options.seed}
    figures |= machine()
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "evaluation.json").write_text(json.dumps(figures, indent=2) + "\n")
    table = markdown(figures)
    (options.out / "evaluation.md").write_text(table)
    print(table)


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


def machine() -> dict[str, object]:
    """Processor, cores, load and versions."""
    names = (line for line in cpuinfo() if line.startswith("model name"))
    return {
        "cpu": next(names, platform.processor()).rpartition(":")[2].strip(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "numba": numba.__version__,
            "torch": torch.__version__,
        },
        "queries": QUERIES,
        "items": ITEMS,
        "bits": BITS,
        "classes": CLASSES,
        "ks": KS,
        "repeats": REPEATS,
        "loop_queries": LOOP_QUERIES,
    }


def cpuinfo() -> list[str]:
    """Lines of the kernel's description of the processor, none off Linux."""
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def markdown(figures: dict[str, Any]) -> str:
    """The figures as a table."""
    rows = "".join(f"| {name} | {value:.3f} |\n" for name, value in figures["seconds"].items())
    loop = figures["map_of_the_loop_queries"]
    versions = ", ".join(f"{name} {value}" for name, value in figures["versions"].items())
    return (
        "# Evaluation time\n\n"
        f"{figures['queries']:,} queries x {figures['items']:,} items, {figures['bits']} bits, "
        f"{figures['classes']} classes, k = {' and '.join(map(str, figures['ks']))}; random codes, "
        f"seed {figures['seed']}.\n{figures['cpu']}, {figures['cores']} cores, "
        f"{figures['threads']} threads, load average {figures['load_average']:.1f}; {versions}.\n"
        f"Fastest of {figures['repeats']}, after compilation. The public loop was timed on "
        f"{figures['loop_queries']} queries and scaled to all.\n\n"
        f"| what | seconds |\n|---|---:|\n{rows}\n"
        f"On these {figures['loop_queries']} queries the loop finds a mAP of "
        f"{loop['public loop']:.4f}, by an order of ties that its sort happens to give; the "
        f"expectation over all orders is {loop['map']:.4f}, the best {loop['map_best']:.4f}, the "
        f"worst {loop['map_worst']:.4f}.\n"
    )


if __name__ == "__main__":
    main()
