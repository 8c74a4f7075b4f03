"""Hamming distances between packed codes: histograms, database order, nearest items.

A ranking by Hamming distance is known, up to the order of ties, from two small histograms per
query. They cost one popcount a pair, add up over shards of the database, and hold all that
`deephash.metrics` needs. Nothing here builds a matrix of queries x items.
"""

from deephash.hamming.histogram import database_order_histogram, distance_histogram
from deephash.hamming.nearest import knn

__all__ = ["database_order_histogram", "distance_histogram", "knn"]
