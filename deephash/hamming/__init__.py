"""Hamming distances between packed codes: histograms, database order, nearest items.

A ranking by Hamming distance is known, up to the order of ties, from two small histograms per
query, and with graded relevance from a few more. They cost one popcount a word, add up over shards
of the database, and hold all that `deephash.metrics.average_precision` needs. Nothing here builds a matrix of
queries x items.
"""

from deephash.hamming.histogram import (
    GradedHistogram,
    database_order_histogram,
    distance_histogram,
    gain_by_grade,
    graded_histogram,
)
from deephash.hamming.knn import knn

__all__ = [
    "GradedHistogram",
    "database_order_histogram",
    "distance_histogram",
    "gain_by_grade",
    "graded_histogram",
    "knn",
]
