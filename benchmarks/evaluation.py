"""Time the exact evaluation against the loop of public code and against torchmetrics.

`python benchmarks/evaluation.py` writes results/evaluation.json and results/evaluation.md.
"""

import argparse
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from machine import FASTEST_OF, described, machine, timed, write
from torchmetrics.retrieval import RetrievalMAP

from deephash.hamming import distance_histogram
from deephash.hamming.codes import pack
from deephash.metrics.average_precision import average_precision
from deephash.metrics.code_health import code_health
from deephash.metrics.ranking import Ranking, evaluate_codes

QUERIES, ITEMS, BITS, CLASSES, FLIPPED = 10_000, 60_000, 48, 10, 0.2  # the size of CIFAR-10
GROWTH = [  # queries, items, bits: each grows alone
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
    """Codes around a centre a class, -1 and +1 in float32, and their labels."""

    query: npt.NDArray[np.float32]
    query_labels: npt.NDArray[np.int64]
    database: npt.NDArray[np.float32]
    database_labels: npt.NDArray[np.int64]

    @classmethod
    def drawn(cls, seed: int, queries: int, items: int, bits: int) -> "Codes":
        """Random centres; of each code a share of bits is flipped."""
        rng = np.random.default_rng(seed)
        centres = rng.choice([-1, 1], (CLASSES, bits))

        def side(count: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
            labels = rng.integers(CLASSES, size=count)
            flips = np.where(rng.random((count, bits)) < FLIPPED, -1, 1)
            return (centres[labels] * flips).astype(np.float32), labels

        return cls(*side(queries), *side(items))

    def first(self, queries: int) -> "Codes":
        """With these queries alone."""
        some = self.query[:queries], self.query_labels[:queries]
        return Codes(*some, self.database, self.database_labels)

    def packed(self) -> tuple[Any, ...]:
        """Arguments of the functions under test."""
        query, database = pack(self.query), pack(self.database)
        bits = self.query.shape[1]
        return query, self.query_labels, database, self.database_labels, bits


def main() -> None:
    """Measure, and write the figures as JSON and as tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    figures = measure(Codes.drawn(options.seed, QUERIES, ITEMS, BITS))
    figures["growth"] = [growth(options.seed, *size) for size in GROWTH]
    figures |= {
        "threads": options.threads,
        "seed": options.seed,
        **machine("numpy", "numba", "torchmetrics"),
    }
    write("evaluation", figures, markdown(figures))


def measure(codes: Codes) -> dict[str, Any]:
    """Seconds by what was computed, and the mAP that each way found."""
    pairs = codes.packed()
    evaluated(codes.first(4).packed(), database_order=True)  # compiles
    evaluated(codes.first(4).packed(), database_order=False)
    few, fewer = codes.first(LOOP_QUERIES), codes.first(TORCHMETRICS_QUERIES)
    _, histogram_seconds = timed(lambda: distance_histogram(*pairs))
    _, map_seconds = timed(lambda: average_precision(*distance_histogram(*pairs)))
    _, exact_seconds = timed(lambda: evaluated(pairs, database_order=False))
    ranking, all_seconds = timed(lambda: evaluated(pairs, database_order=True))
    _, health_seconds = timed(lambda: code_health(pairs[2], BITS))
    loop_map, loop_seconds = timed(lambda: public_loop(few))
    torchmetrics_map, torchmetrics_seconds = timed(lambda: torchmetrics_loop(fewer))
    exact = evaluated(few.packed(), database_order=False).scalars
    return {
        "seconds": {
            "histogram": histogram_seconds,
            "mAP": map_seconds,
            "all figures but those in database order": exact_seconds,
            "all figures": all_seconds,
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
            "map": evaluated(fewer.packed(), database_order=False).scalars["map"],
        },
    }


def growth(seed: int, queries: int, items: int, bits: int) -> dict[str, float]:
    """Seconds of all figures but those in database order, for one size."""
    pairs = Codes.drawn(seed, queries, items, bits).packed()
    evaluated(pairs, database_order=False)  # compiles
    _, seconds = timed(lambda: evaluated(pairs, database_order=False))
    return {"queries": queries, "items": items, "bits": bits, "seconds": seconds}


def evaluated(pairs: tuple[Any, ...], *, database_order: bool) -> Ranking:
    """All figures."""
    return evaluate_codes(*pairs, ks=KS, radius=RADIUS, database_order=database_order)


def public_loop(codes: Codes) -> float:
    """The mAP as public code computes it: a query at a time, float product, unstable sort."""
    total = 0.0
    for code, label in zip(codes.query, codes.query_labels, strict=True):
        distance = 0.5 * (BITS - codes.database @ code)
        relevant = (codes.database_labels == label)[np.argsort(distance)]
        ranks = np.flatnonzero(relevant) + 1
        total += float(np.mean(np.arange(1, len(ranks) + 1) / ranks))
    return total / len(codes.query)


def torchmetrics_loop(codes: Codes) -> float:
    """The mAP of torchmetrics, a query at a time; its scores must be positive."""
    metric = RetrievalMAP()
    database, labels = torch.from_numpy(codes.database), torch.from_numpy(codes.database_labels)
    for i, code in enumerate(torch.from_numpy(codes.query)):
        scores = BITS + 1 + database @ code
        relevant = labels == int(codes.query_labels[i])
        metric.update(scores, relevant, torch.full((len(labels),), i))
    return float(metric.compute())


def markdown(figures: dict[str, Any]) -> str:
    """The figures as tables."""
    seconds = figures["seconds"]
    rows = "".join(f"| {name} | {value:.3f} |\n" for name, value in seconds.items())
    loop = figures["map_of_the_loop_queries"]
    grown = "".join(
        f"| {size['queries']:,} | {size['items']:,} | {size['bits']} | {size['seconds']:.3f} "
        f"| {size['seconds'] / size['queries'] / size['items'] * 1e9:.2f} |\n"
        for size in figures["growth"]
    )
    return (
        f"{QUERIES:,} queries x {ITEMS:,} items, {BITS} bits, {CLASSES} classes, "
        f"k = {' and '.join(map(str, KS))}; random codes, seed {figures['seed']}.\n"
        f"{described(figures)} {figures['threads']} threads, load average "
        f"{figures['load_average']}.\n"
        f"Fastest of {FASTEST_OF}, after compilation. The public loop was timed on "
        f"{LOOP_QUERIES} queries, torchmetrics' RetrievalMAP on {TORCHMETRICS_QUERIES}, and scaled "
        "to all.\n\n"
        f"| what | seconds |\n|---|---:|\n{rows}\n"
        f"For the mAP, the public loop takes {seconds['public loop, scaled'] / seconds['mAP']:.0f} "
        f"times as long, and torchmetrics {seconds['torchmetrics, scaled'] / seconds['mAP']:.0f} "
        "times.\n"
        f"On its {LOOP_QUERIES} queries it finds a mAP of "
        f"{loop['public loop']:.4f}, by an order of ties that its sort happens to give; the "
        f"expectation over all orders is {loop['map']:.4f}, the best {loop['map_best']:.4f}, the "
        f"worst {loop['map_worst']:.4f}.\n\n"
        "| queries | items | bits | seconds, all but database order | ns a pair |\n"
        f"|---:|---:|---:|---:|---:|\n{grown}"
    )


if __name__ == "__main__":
    main()
