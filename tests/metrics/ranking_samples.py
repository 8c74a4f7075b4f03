"""Codes with labels for the tests of the metrics, and metrics of one order from the definitions."""

import itertools

import numpy as np

from deephash.hamming.codes import pack
from deephash.metrics.ranking import evaluate_codes

KS = (1, 2, 3, 5, 7)


def codes_at(distances, bits, rng):
    """Four equal query codes, and seven database codes at randomly chosen distances from them."""
    query = rng.choice([-1, 1], bits)
    database = np.tile(query, (7, 1))
    for code, distance in zip(database, rng.choice(distances, 7), strict=True):
        code[rng.permutation(bits)[:distance]] *= -1
    return np.tile(query, (4, 1)), database


def tied_sample(bits, labels, seed):
    """Four queries and seven items that are at one of three distances, so that most tie."""
    rng = np.random.default_rng(seed)
    queries, database = codes_at([1, 2, bits - 1], bits, rng)
    if labels == "classes":
        return queries, np.array([0, 1, 2, 9]), database, rng.integers(3, size=7)
    query_labels = np.zeros((4, labels), int)
    query_labels[[0, 0, 1, 1, 2], [0, labels - 1, 1, 2, labels - 1]] = 1  # the last has no label
    return queries, query_labels, database, (rng.random((7, labels)) < 0.3).astype(int)


def large_sample(seed=0, items=4000):
    """Thirty queries and many items in ten clusters, one class each."""
    rng = np.random.default_rng(seed)
    centres = rng.choice([-1, 1], (10, 24))

    def side(count):
        labels = rng.integers(10, size=count)
        return centres[labels] * np.where(rng.random((count, 24)) < 0.25, -1, 1), labels

    return *side(30), *side(items)


def distances_and_relevance(queries, query_labels, database, database_labels):
    """Distances and relevance of all pairs, from the definitions."""
    distance = (queries[:, None] != database[None]).sum(axis=2)
    if query_labels.ndim == 1:
        return distance, query_labels[:, None] == database_labels[None]
    return distance, (query_labels[:, None] * database_labels[None]).any(axis=2)


def all_orders(distance):
    """Every ranking by distance, over all orders of the ties."""
    buckets = [np.flatnonzero(distance == d) for d in np.unique(distance)]
    for parts in itertools.product(*map(itertools.permutations, buckets)):
        yield [item for part in parts for item in part]


def metrics_of_order(ranked, k, total):
    """Metrics of one order, cut at k, from the definitions.

    Args:
        ranked: relevance of the items in this order.
        k: rank to cut at.
        total: number of relevant items.
    """
    ranked = np.asarray(ranked, float)
    precision = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    gain, hits = (precision * ranked)[:k].sum(), ranked[:k].sum()
    return {
        "ap": gain / min(k, total),
        "ap_retrieved": gain / hits if hits else 0.0,
        "precision": hits / k,
        "recall": hits / total,
    }


def evaluate(data, ks=KS, radius=2):
    """`evaluate_codes` with database order, from codes that are not packed."""
    queries, query_labels, database, database_labels = data
    bits = queries.shape[1]
    pairs = pack(queries), query_labels, pack(database), database_labels, bits
    return evaluate_codes(*pairs, ks=ks, radius=radius, database_order=True)
