"""Hamming distances between packed codes: distance histograms, rankings and exact k-NN search.

Up to the order of ties, a ranking by Hamming distance is determined by two small histograms per
query: all items and the relevant items at each distance. Graded relevance needs a few more. The
histograms cost one popcount per pair and word, add up over shards of the database, and contain
everything that `deephash.metrics.average_precision` needs. The whole matrix of queries x items is
never held in memory.
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
