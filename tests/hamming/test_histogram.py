import numpy as np
import pytest
import torch
from code_samples import CASES, naive_distances, pack_sample, sample

from deephash.hamming import database_order_histogram, distance_histogram, gpu, histogram

# The CPU kernel counts few items one by one, and more of them with one table or several.
SIZES = [1, 2, 501, 9001, 140_001]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("bits", "labels"), CASES)
def test_distance_histogram_equals_naive_count(bits, labels, size):
    data = sample(bits, labels, items=size)
    distance, relevance = naive_distances(*data)
    items, relevant = distance_histogram(*pack_sample(*data))
    assert items.shape == relevant.shape == (7, bits + 1)
    assert items.dtype == relevant.dtype == np.int64
    for d in range(bits + 1):
        np.testing.assert_array_equal(items[:, d], (distance == d).sum(axis=1))
        np.testing.assert_array_equal(relevant[:, d], ((distance == d) & relevance).sum(axis=1))


def test_classes_of_only_one_side_and_large_class_indices():
    query_labels = np.array([9, 2, 2, 70_000, 0, 9, 2, 5, 70_000 - 2**16])
    codes, _, database, _ = sample(48, "classes", queries=9, items=6000)
    database_labels = np.random.default_rng(1).choice([0, 2, 7, 70_000], 6000)
    data = codes, query_labels, database, database_labels
    distance, relevance = naive_distances(*data)
    items, relevant = distance_histogram(*pack_sample(*data))
    for i, row in enumerate(distance):
        np.testing.assert_array_equal(items[i], np.bincount(row, minlength=49))
        np.testing.assert_array_equal(relevant[i], np.bincount(row[relevance[i]], minlength=49))


def test_more_equal_codes_than_16_bits_can_count():
    words, labels = np.zeros((70_000, 1), np.uint64), np.zeros(70_000, int)
    items, relevant = distance_histogram(words[:2], labels[:2], words, labels, 48)
    assert (items[:, 0] == 70_000).all()
    assert (relevant[:, 0] == 70_000).all()
    assert items[:, 1:].sum() == 0


@pytest.mark.parametrize(("bits", "labels"), CASES)
def test_torch_kernel_equals_numba_kernel(bits, labels, monkeypatch):
    monkeypatch.setattr(gpu, "PAIRS_PER_CHUNK", 1500)  # three queries at a time
    arguments = pack_sample(*sample(bits, labels))
    keys = histogram._check_arguments(*arguments)
    counts = gpu.histogram(*(torch.from_numpy(a.view(np.int64)) for a in keys), bits=bits)
    for count, expected in zip(counts, distance_histogram(*arguments), strict=True):
        np.testing.assert_array_equal(count.numpy(), expected)


def test_tensors_and_arrays_give_the_same_histograms():
    *arrays, bits = pack_sample(*sample(48, "classes"))
    tensors = [torch.from_numpy(a.view(np.int64)) for a in arrays]
    for a, b in zip(
        distance_histogram(*tensors, bits), distance_histogram(*arrays, bits), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("labels", ["classes", 70])
def test_histograms_of_shards_add_up(labels):
    queries, query_labels, database, database_labels, bits = pack_sample(*sample(48, labels))
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
    distance, relevance = naive_distances(*data)
    arguments, cutoffs = pack_sample(*data), [1, 20, 499, 500]
    items, relevant, sums, hits = database_order_histogram(*arguments, cutoffs=cutoffs)
    np.testing.assert_array_equal((items, relevant), distance_histogram(*arguments))
    for i, order in enumerate(np.argsort(distance, axis=1, kind="stable")):
        ranked = relevance[i, order]
        precision = np.cumsum(ranked) / np.arange(1, 501)
        for c, k in enumerate(cutoffs):
            assert sums[i, c] == pytest.approx((precision * ranked)[:k].sum(), rel=1e-12)
            assert hits[i, c] == ranked[:k].sum()


def test_errors_name_the_side_and_the_shape():
    queries, query_labels, database, database_labels, bits = pack_sample(*sample(48, "classes"))
    with pytest.raises(ValueError, match="499 database labels for 500 codes"):
        distance_histogram(queries, query_labels, database, database_labels[:-1], bits)
    with pytest.raises(ValueError, match=r"query labels have shape .* type float64"):
        distance_histogram(queries, query_labels * 0.5, database, database_labels, bits)
    with pytest.raises(ValueError, match="both as class indices or both as multi-hot"):
        distance_histogram(queries, np.eye(7, 4, dtype=int), database, database_labels, bits)
    with pytest.raises(ValueError, match="query words have shape"):
        distance_histogram(queries, query_labels, database, database_labels, 65)
    longer = database | (np.arange(len(database)) == 3)[:, None] * np.uint64(2**50)
    with pytest.raises(ValueError, match="row 3 of database words has padding bit 50 set"):
        distance_histogram(queries, query_labels, longer, database_labels, bits)
    with pytest.raises(ValueError, match="words have type int8"):
        distance_histogram(queries.astype(np.int8), query_labels, database, database_labels, bits)
    arguments = (queries, query_labels, database, database_labels, bits)
    with pytest.raises(ValueError, match=r"cutoffs are \[5, 2\]"):
        database_order_histogram(*arguments, cutoffs=[5, 2])
