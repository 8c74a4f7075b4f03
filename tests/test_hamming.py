import subprocess
import sys

import numpy as np
import pytest
import torch

from deephash import hamming
from deephash.codes import pack
from deephash.hamming import database_order_histogram, distance_histogram, nearest

CASES = [
    pytest.param(bits, labels, id=f"{bits}-{labels}")
    for bits, labels in [
        (12, "classes"), (48, "classes"), (64, "classes"), (128, "classes"),
        (12, 5), (48, 70), (64, 64), (128, 130),
    ]
]  # fmt: skip


def sample(bits, labels, queries=7, items=500, seed=0):
    """Codes with many ties, and their labels: class indices or multi-hot of some width."""
    rng = np.random.default_rng(seed)
    centres = rng.choice([-1, 1], (6, bits))

    def side(count):
        flips = np.where(rng.random((count, bits)) < 0.1, -1, 1)
        codes = centres[rng.integers(6, size=count)] * flips
        if labels == "classes":
            return codes, rng.integers(4, size=count)
        return codes, (rng.random((count, labels)) < 1 / labels).astype(np.int64)

    return *side(queries), *side(items)


def naive(query_codes, query_labels, database_codes, database_labels):
    """Distances and relevance of all pairs, from the definitions."""
    distance = (query_codes[:, None] != database_codes[None]).sum(axis=2)
    if query_labels.ndim == 1:
        return distance, query_labels[:, None] == database_labels[None]
    return distance, (query_labels[:, None] * database_labels[None]).any(axis=2)


def packed(query_codes, query_labels, database_codes, database_labels):
    bits = query_codes.shape[1]
    return pack(query_codes), query_labels, pack(database_codes), database_labels, bits


@pytest.mark.parametrize(("bits", "labels"), CASES)
def test_histogram_is_the_naive_count(bits, labels):
    data = sample(bits, labels)
    distance, relevance = naive(*data)
    items, relevant = distance_histogram(*packed(*data))
    assert items.shape == relevant.shape == (7, bits + 1)
    assert items.dtype == relevant.dtype == np.int64
    for d in range(bits + 1):
        np.testing.assert_array_equal(items[:, d], (distance == d).sum(axis=1))
        np.testing.assert_array_equal(relevant[:, d], ((distance == d) & relevance).sum(axis=1))


@pytest.mark.parametrize(("bits", "labels"), CASES)
def test_torch_counts_what_numba_counts(bits, labels, monkeypatch):
    monkeypatch.setattr(hamming, "PAIRS_PER_CHUNK", 1500)  # three queries at a time
    arguments = packed(*sample(bits, labels))
    keys = hamming._checked(*arguments)
    counts = hamming._histogram_torch(*(torch.from_numpy(a.view(np.int64)) for a in keys), bits)
    items, relevant = distance_histogram(*arguments)
    np.testing.assert_array_equal(counts.sum(dim=2).numpy(), items)
    np.testing.assert_array_equal(counts[:, :, 1].numpy(), relevant)


def test_tensors_count_as_arrays_do():
    *arrays, bits = packed(*sample(48, "classes"))
    tensors = [torch.from_numpy(a.view(np.int64)) for a in arrays]
    for a, b in zip(
        distance_histogram(*tensors, bits), distance_histogram(*arrays, bits), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("labels", ["classes", 70])
def test_histograms_of_shards_add_up(labels):
    queries, query_labels, database, database_labels, bits = packed(*sample(48, labels))
    whole = distance_histogram(queries, query_labels, database, database_labels, bits)
    shards = [
        distance_histogram(queries, query_labels, database[part], database_labels[part], bits)
        for part in (slice(0, 123), slice(123, 124), slice(124, 124), slice(124, None))
    ]
    for total, parts in zip(whole, zip(*shards, strict=True), strict=True):
        np.testing.assert_array_equal(total, np.sum(parts, axis=0))


@pytest.mark.parametrize(("bits", "labels"), CASES)
def test_database_order_is_a_stable_sort(bits, labels):
    data = sample(bits, labels)
    distance, relevance = naive(*data)
    arguments, cutoffs = packed(*data), [1, 20, 499, 500]
    items, relevant, sums, hits = database_order_histogram(*arguments, cutoffs=cutoffs)
    np.testing.assert_array_equal((items, relevant), distance_histogram(*arguments))
    for i, order in enumerate(np.argsort(distance, axis=1, kind="stable")):
        ranked = relevance[i, order]
        precision = np.cumsum(ranked) / np.arange(1, 501)
        for c, k in enumerate(cutoffs):
            assert sums[i, c] == pytest.approx((precision * ranked)[:k].sum(), rel=1e-12)
            assert hits[i, c] == ranked[:k].sum()


@pytest.mark.parametrize("bits", [12, 64, 128])
def test_nearest_is_a_stable_sort(bits):
    data = sample(bits, "classes")
    distance, _ = naive(*data)
    order = np.argsort(distance, axis=1, kind="stable")[:, :30]
    indices, distances = nearest(pack(data[0]), pack(data[2]), 30)
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_array_equal(distances, np.take_along_axis(distance, order, axis=1))


def test_errors_name_the_side_and_the_shape():
    queries, query_labels, database, database_labels, bits = packed(*sample(48, "classes"))
    with pytest.raises(ValueError, match="database labels have shape"):
        distance_histogram(queries, query_labels, database, database_labels[:-1], bits)
    with pytest.raises(ValueError, match=r"query labels have shape .* type float64"):
        distance_histogram(queries, query_labels * 0.5, database, database_labels, bits)
    with pytest.raises(ValueError, match="both as class indices or both as multi-hot"):
        distance_histogram(queries, np.eye(7, 4, dtype=int), database, database_labels, bits)
    with pytest.raises(ValueError, match="query words have shape"):
        distance_histogram(queries, query_labels, database, database_labels, 65)
    with pytest.raises(ValueError, match="words have type int8"):
        distance_histogram(queries.astype(np.int8), query_labels, database, database_labels, bits)
    with pytest.raises(ValueError, match="k is 501"):
        nearest(queries, database, 501)
    arguments = (queries, query_labels, database, database_labels, bits)
    with pytest.raises(ValueError, match=r"cutoffs are \[5, 2\]"):
        database_order_histogram(*arguments, cutoffs=[5, 2])


def test_torch_keeps_its_number_of_threads():
    # In a process of its own: only numba's first kernel sets the size of a shared pool.
    program = (
        "import numpy as np, torch; from deephash.hamming import distance_histogram\n"
        "words, labels = np.arange(9, dtype=np.uint64)[:, None], np.arange(9)\n"
        "torch.set_num_threads(1)\n"
        "distance_histogram(words, labels, words, labels, 48)\n"
        "print(torch.get_num_threads())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.split() == [b"1"]
