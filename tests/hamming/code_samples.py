"""Codes with labels for the tests of the Hamming kernels, and their naive evaluation."""

import numpy as np
import pytest

from deephash.hamming.codes import pack

# Code length, and "classes" for class indices or the number of labels for multi-hot labels.
CASES = [
    pytest.param(bits, labels, id=f"{bits}-{labels}")
    for bits, labels in [
        (12, "classes"), (48, "classes"), (64, "classes"), (128, "classes"), (300, "classes"),
        (12, 5), (48, 70), (64, 64), (128, 130),
    ]
]  # fmt: skip
# Code length, number of labels, and their density. With 0.9 of 130, grades exceed 62.
GRADED_CASES = [(12, 5, 0.3), (48, 21, 0.1), (64, 64, 0.4), (128, 70, 0.05), (48, 130, 0.9)]


def sample(bits, labels, queries=7, items=500, seed=0):
    """Query codes, query labels, database codes and database labels; many distances tie."""
    rng = np.random.default_rng(seed)
    centres = rng.choice([-1, 1], (6, bits))

    def side(count):
        flips = np.where(rng.random((count, bits)) < 0.1, -1, 1)
        codes = centres[rng.integers(6, size=count)] * flips
        if labels == "classes":
            return codes, rng.integers(4, size=count)
        return codes, (rng.random((count, labels)) < 1 / labels).astype(np.int64)

    return *side(queries), *side(items)


def graded_sample(bits, labels, density, items=500, seed=0):
    """`sample` with multi-hot labels of the given density; the first query has none."""
    queries, _, database, _ = sample(bits, labels, items=items, seed=seed)
    rng = np.random.default_rng(seed)
    query_labels, database_labels = (
        (rng.random((len(codes), labels)) < density).astype(np.int64)
        for codes in (queries, database)
    )
    query_labels[0] = 0
    return queries, query_labels, database, database_labels


def pack_sample(query_codes, query_labels, database_codes, database_labels):
    """The arguments of the histogram functions."""
    bits = query_codes.shape[1]
    return pack(query_codes), query_labels, pack(database_codes), database_labels, bits


def naive_distances(query_codes, query_labels, database_codes, database_labels):
    """Distances and relevance of all pairs, from the definitions."""
    distance = (query_codes[:, None] != database_codes[None]).sum(axis=2)
    if query_labels.ndim == 1:
        return distance, query_labels[:, None] == database_labels[None]
    return distance, (query_labels[:, None] * database_labels[None]).any(axis=2)


def assert_same_histograms(histogram, expected):
    """Assert equal graded histograms; sums of gains beyond 2^53 may be rounded differently."""
    for name, part, other in zip(histogram._fields, histogram, expected, strict=True):
        assert part.dtype == (np.float64 if name == "gains" else np.int64)
        other = np.array(other, part.dtype)
        exact = (part < 2**53) | (other < 2**53)
        np.testing.assert_array_equal(part[exact], other[exact], name)
        np.testing.assert_allclose(part, other, rtol=1e-14, err_msg=name)
