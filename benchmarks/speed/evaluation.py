"""The exact evaluation against the usual loop of public code and against torchmetrics.

    python -m benchmarks.speed.evaluation

Writes results/evaluation.*.
"""

import argparse
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torchmetrics.retrieval import RetrievalMAP

from benchmarks.machine import (
    REPEATS,
    describe_machine,
    machine_info,
    time_fastest,
    write_results,
)
from deephash.hamming import distance_histogram
from deephash.hamming.codes import pack
from deephash.metrics.average_precision import average_precision
from deephash.metrics.code_health import code_health
from deephash.metrics.ranking import Ranking, evaluate_codes

QUERIES, ITEMS, BITS = 10_000, 60_000, 48  # the size of CIFAR-10
NUM_CLASSES, FLIP_PROBABILITY = 10, 0.2
GROWTH = [  # queries, items, bits; one of them grows at a time
    (10_000, 60_000, 48),
    (20_000, 60_000, 48),
    (10_000, 120_000, 48),
    (10_000, 60_000, 12),
    (10_000, 60_000, 64),
    (10_000, 60_000, 128),
]
KS, RADIUS = (100, 1000), 2
LOOP_QUERIES, TORCHMETRICS_QUERIES = 200, 50  # timed, and scaled to all


@dataclass(frozen=True)
class Codes:
    """Codes around one centre per class, -1 and +1 in float32, and their labels."""

    query: npt.NDArray[np.float32]
    query_labels: npt.NDArray[np.int64]
    database: npt.NDArray[np.float32]
    database_labels: npt.NDArray[np.int64]

    @classmethod
    def sample(cls, seed: int, queries: int, items: int, bits: int) -> "Codes":
        """Draw random centres, and flip a fraction of the bits of each code."""
        rng = np.random.default_rng(seed)
        centres = rng.choice([-1, 1], (NUM_CLASSES, bits))

        def sample_part(count: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
            labels = rng.integers(NUM_CLASSES, size=count)
            flips = np.where(rng.random((count, bits)) < FLIP_PROBABILITY, -1, 1)
            return (centres[labels] * flips).astype(np.float32), labels

        return cls(*sample_part(queries), *sample_part(items))

    def first_queries(self, count: int) -> "Codes":
        """The same database with the first queries only."""
        queries = self.query[:count], self.query_labels[:count]
        return Codes(*queries, self.database, self.database_labels)

    def packed(self) -> tuple[Any, ...]:
        """Positional arguments of `evaluate_codes` and `distance_histogram`."""
        query, database = pack(self.query), pack(self.database)
        bits = self.query.shape[1]
        return query, self.query_labels, database, self.database_labels, bits


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = measure(Codes.sample(options.seed, QUERIES, ITEMS, BITS))
    results["growth"] = [measure_size(options.seed, *size) for size in GROWTH]
    results |= {
        "threads": options.threads,
        "seed": options.seed,
        **machine_info("numpy", "numba", "torchmetrics"),
    }
    write_results("evaluation", results, markdown(results))


def measure(codes: Codes) -> dict[str, Any]:
    """Seconds by what was computed, and the mAP by each implementation."""
    pairs = codes.packed()
    evaluate(codes.first_queries(4).packed(), database_order=True)  # compiles
    evaluate(codes.first_queries(4).packed(), database_order=False)
    loop_codes = codes.first_queries(LOOP_QUERIES)
    torchmetrics_codes = codes.first_queries(TORCHMETRICS_QUERIES)
    _, histogram_seconds = time_fastest(lambda: distance_histogram(*pairs))
    _, map_seconds = time_fastest(lambda: average_precision(*distance_histogram(*pairs)))
    _, expected_seconds = time_fastest(lambda: evaluate(pairs, database_order=False))
    ranking, all_seconds = time_fastest(lambda: evaluate(pairs, database_order=True))
    _, health_seconds = time_fastest(lambda: code_health(pairs[2], BITS))
    loop_map, loop_seconds = time_fastest(lambda: map_by_public_loop(loop_codes))
    torchmetrics_map, torchmetrics_seconds = time_fastest(
        lambda: map_by_torchmetrics(torchmetrics_codes)
    )
    exact = evaluate(loop_codes.packed(), database_order=False).scalars
    return {
        "seconds": {
            "histogram": histogram_seconds,
            "mAP": map_seconds,
            "all metrics except those in database order": expected_seconds,
            "all metrics": all_seconds,
            "code health": health_seconds,
            "public loop, scaled": loop_seconds * QUERIES / LOOP_QUERIES,
            "torchmetrics, scaled": torchmetrics_seconds * QUERIES / TORCHMETRICS_QUERIES,
        },
        "map": {name: v for name, v in ranking.scalars.items() if name.startswith("map")},
        "map_of_the_loop_queries": {
            "public loop": loop_map,
            **{name: exact[name] for name in ("map", "map_best", "map_worst")},
        },
        "map_of_the_torchmetrics_queries": {
            "torchmetrics": torchmetrics_map,
            "map": evaluate(torchmetrics_codes.packed(), database_order=False).scalars["map"],
        },
    }


def measure_size(seed: int, queries: int, items: int, bits: int) -> dict[str, float]:
    """Seconds of all metrics except those in database order, for one size."""
    pairs = Codes.sample(seed, queries, items, bits).packed()
    evaluate(pairs, database_order=False)  # compiles
    _, seconds = time_fastest(lambda: evaluate(pairs, database_order=False))
    return {"queries": queries, "items": items, "bits": bits, "seconds": seconds}


def evaluate(pairs: tuple[Any, ...], *, database_order: bool) -> Ranking:
    """All metrics of packed codes."""
    return evaluate_codes(*pairs, ks=KS, radius=RADIUS, database_order=database_order)


def map_by_public_loop(codes: Codes) -> float:
    """The mAP as public code computes it: query by query, float product, unstable sort."""
    total = 0.0
    for code, label in zip(codes.query, codes.query_labels, strict=True):
        distance = 0.5 * (BITS - codes.database @ code)
        relevant = (codes.database_labels == label)[np.argsort(distance)]
        ranks = np.flatnonzero(relevant) + 1
        total += float(np.mean(np.arange(1, len(ranks) + 1) / ranks))
    return total / len(codes.query)


def map_by_torchmetrics(codes: Codes) -> float:
    """The mAP by torchmetrics, query by query; its scores must be positive."""
    metric = RetrievalMAP()
    database, labels = torch.from_numpy(codes.database), torch.from_numpy(codes.database_labels)
    for i, code in enumerate(torch.from_numpy(codes.query)):
        scores = BITS + 1 + database @ code
        relevant = labels == int(codes.query_labels[i])
        metric.update(scores, relevant, torch.full((len(labels),), i))
    return float(metric.compute())


def markdown(results: dict[str, Any]) -> str:
    """The results as Markdown tables."""
    seconds = results["seconds"]
    rows = "".join(f"| {name} | {value:.3f} |\n" for name, value in seconds.items())
    loop = results["map_of_the_loop_queries"]
    growth_rows = "".join(
        f"| {size['queries']:,} | {size['items']:,} | {size['bits']} | {size['seconds']:.3f} "
        f"| {size['seconds'] / size['queries'] / size['items'] * 1e9:.2f} |\n"
        for size in results["growth"]
    )
    return (
        f"{QUERIES:,} queries x {ITEMS:,} items, {BITS} bits, {NUM_CLASSES} classes, "
        f"k = {' and '.join(map(str, KS))}; random codes, seed {results['seed']}.\n"
        f"{describe_machine(results)} {results['threads']} threads, load average "
        f"{results['load_average']}.\n"
        f"Fastest of {REPEATS}, after compilation. The public loop was timed on "
        f"{LOOP_QUERIES} queries, torchmetrics' RetrievalMAP on {TORCHMETRICS_QUERIES}, and scaled "
        "to all queries.\n\n"
        f"| computation | seconds |\n|---|---:|\n{rows}\n"
        f"For the mAP, the public loop takes {seconds['public loop, scaled'] / seconds['mAP']:.0f} "
        f"times as long, and torchmetrics {seconds['torchmetrics, scaled'] / seconds['mAP']:.0f} "
        "times.\n"
        f"On its {LOOP_QUERIES} queries the public loop computes a mAP of "
        f"{loop['public loop']:.4f}, which depends on the order that its sort gives to ties. The "
        f"expectation over all orders is {loop['map']:.4f}, the best {loop['map_best']:.4f}, the "
        f"worst {loop['map_worst']:.4f}.\n\n"
        "| queries | items | bits | seconds, without database order | ns per pair |\n"
        f"|---:|---:|---:|---:|---:|\n{growth_rows}"
    )


if __name__ == "__main__":
    main()
