import subprocess
import sys

import numpy as np
import pytest
import torch
from llvmlite.binding import get_host_cpu_features
from numba import njit

from deephash.hamming import (
    GradedHistogram,
    cpu,
    database_order_histogram,
    distance_histogram,
    gain_by_grade,
    gpu,
    graded_histogram,
    histogram,
    knn,
)
from deephash.hamming.codes import pack

CASES = [
    pytest.param(bits, labels, id=f"{bits}-{labels}")
    for bits, labels in [
        (12, "classes"), (48, "classes"), (64, "classes"), (128, "classes"), (300, "classes"),
        (12, 5), (48, 70), (64, 64), (128, 130),
    ]
]  # fmt: skip
# Code length, number of labels, share of them that an item has: 0.9 of 130 share more than 62.
GRADED = [(12, 5, 0.3), (48, 21, 0.1), (64, 64, 0.4), (128, 70, 0.05), (48, 130, 0.9)]
ONE, MANY = np.zeros(1, np.uint64), np.zeros(8, np.uint64)
SIZES = [1, 2, 501, 9001, 140_001]  # few are counted one by one, more by one table or several


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


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("bits", "labels"), CASES)
def test_histogram_is_the_naive_count(bits, labels, size):
    data = sample(bits, labels, items=size)
    distance, relevance = naive(*data)
    items, relevant = distance_histogram(*packed(*data))
    assert items.shape == relevant.shape == (7, bits + 1)
    assert items.dtype == relevant.dtype == np.int64
    for d in range(bits + 1):
        np.testing.assert_array_equal(items[:, d], (distance == d).sum(axis=1))
        np.testing.assert_array_equal(relevant[:, d], ((distance == d) & relevance).sum(axis=1))


def test_classes_of_one_side_alone_and_large_class_indices_are_told_apart():
    query_labels = np.array([9, 2, 2, 70_000, 0, 9, 2, 5, 70_000 - 2**16])
    codes, _, database, _ = sample(48, "classes", queries=9, items=6000)
    database_labels = np.random.default_rng(1).choice([0, 2, 7, 70_000], 6000)
    data = codes, query_labels, database, database_labels
    distance, relevance = naive(*data)
    found = distance_histogram(*packed(*data))
    for i, row in enumerate(distance):
        wanted = np.bincount(row, minlength=49), np.bincount(row[relevance[i]], minlength=49)
        np.testing.assert_array_equal((found[0][i], found[1][i]), wanted)


def test_more_equal_codes_than_16_bits_can_count():
    words, labels = np.zeros((70_000, 1), np.uint64), np.zeros(70_000, int)
    items, relevant = distance_histogram(words[:2], labels[:2], words, labels, 48)
    assert (items[:, 0] == 70_000).all()
    assert (relevant[:, 0] == 70_000).all()
    assert items[:, 1:].sum() == 0


@pytest.mark.parametrize(("bits", "labels"), CASES)
def test_torch_counts_what_numba_counts(bits, labels, monkeypatch):
    monkeypatch.setattr(gpu, "PAIRS_PER_CHUNK", 1500)  # three queries at a time
    arguments = packed(*sample(bits, labels))
    keys = histogram._checked(*arguments)
    counts = gpu.histogram(*(torch.from_numpy(a.view(np.int64)) for a in keys), bits=bits)
    for found, wanted in zip(counts, distance_histogram(*arguments), strict=True):
        np.testing.assert_array_equal(found.numpy(), wanted)


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


def graded_sample(bits, labels, share, items=500, seed=0):
    """`sample` with labels of some density; the first query has none."""
    queries, _, database, _ = sample(bits, labels, items=items, seed=seed)
    rng = np.random.default_rng(seed)
    query_labels, database_labels = (
        (rng.random((len(codes), labels)) < share).astype(np.int64) for codes in (queries, database)
    )
    query_labels[0] = 0
    return queries, query_labels, database, database_labels


def counted_one_by_one(queries, query_labels, database, database_labels):
    """The five graded histograms as lists, in Python's whole numbers, from the definitions."""
    (q, bits), most = queries.shape, max(map(sum, query_labels.tolist()))
    items, relevant, grades, gains = ([[0] * (bits + 1) for _ in range(q)] for _ in range(4))
    by_grade = [[0] * (most + 1) for _ in range(q)]
    for i in range(q):
        for code, labels in zip(database, database_labels, strict=True):
            distance = int((queries[i] != code).sum())
            grade = int((query_labels[i] * labels).sum())
            items[i][distance] += 1
            relevant[i][distance] += grade > 0
            grades[i][distance] += grade
            gains[i][distance] += 2**grade - 1
            by_grade[i][grade] += 1
    return items, relevant, grades, gains, by_grade


def assert_same_histograms(found, wanted):
    """Equal counts; sums of gains beyond 2^53 are rounded."""
    for name, part, other in zip(found._fields, found, wanted, strict=True):
        assert part.dtype == (np.float64 if name == "gains" else np.int64)
        other = np.array(other, part.dtype)
        small = (part < 2**53) | (other < 2**53)
        np.testing.assert_array_equal(part[small], other[small], name)
        np.testing.assert_allclose(part, other, rtol=1e-14, err_msg=name)


@pytest.mark.parametrize("size", [1, 127, 128, 501])
@pytest.mark.parametrize(("bits", "labels", "share"), GRADED)
def test_graded_histogram_is_the_naive_count(bits, labels, share, size):
    data = graded_sample(bits, labels, share, items=size)
    found = graded_histogram(*packed(*data))
    assert_same_histograms(found, counted_one_by_one(*data))
    assert found.relevant[0].sum() == found.gains[0].sum() == 0
    np.testing.assert_array_equal((found.items, found.relevant), distance_histogram(*packed(*data)))


def test_some_cases_share_more_labels_than_whole_numbers_have_bits():
    by_grade = graded_histogram(*packed(*graded_sample(*GRADED[-1]))).by_grade
    assert by_grade[:, 64:].any()


def test_items_that_are_all_equal_share_one_cell():
    words, labels = np.zeros((70_000, 1), np.uint64), np.ones((70_000, 3), int)
    found = graded_histogram(words[:2], labels[:2], words, labels, 48)
    for part, each in zip(found[:4], (1, 1, 3, 7), strict=True):
        np.testing.assert_array_equal(part[:, 0], 70_000 * each)
        assert not part[:, 1:].any()
    np.testing.assert_array_equal(found.by_grade, [[0, 0, 0, 70_000]] * 2)


@pytest.mark.parametrize(("bits", "labels", "share"), GRADED)
def test_torch_counts_the_grades_that_numba_counts(bits, labels, share, monkeypatch):
    arguments = packed(*graded_sample(bits, labels, share))
    wanted = graded_histogram(*arguments)
    most = wanted.by_grade.shape[1] - 1
    cells = max(500, (bits + 1) * (most + 1))
    monkeypatch.setattr(gpu, "PAIRS_PER_CHUNK", 3 * cells)  # three queries at a time
    keys = (torch.from_numpy(a.view(np.int64)) for a in histogram._checked(*arguments))
    gain = torch.from_numpy(gain_by_grade(most))
    found = gpu.graded_histogram(*keys, bits=bits, gain=gain)
    assert_same_histograms(GradedHistogram(*(part.numpy() for part in found)), wanted)


@pytest.mark.parametrize(("bits", "labels", "share"), GRADED)
def test_graded_histograms_of_shards_add_up(bits, labels, share):
    queries, query_labels, database, database_labels = graded_sample(bits, labels, share)
    whole = graded_histogram(*packed(queries, query_labels, database, database_labels))
    shards = [
        graded_histogram(*packed(queries, query_labels, database[part], database_labels[part]))
        for part in (slice(0, 123), slice(123, 124), slice(124, None))
    ]
    assert_same_histograms(whole, [sum(parts) for parts in zip(*shards, strict=True)])


def test_gains_of_the_most_labels_are_finite_and_of_more_an_error():
    words, labels = np.zeros((40, 1), np.uint64), np.ones((40, 961), int)
    labels[:, 0] = 0
    found = graded_histogram(words[:1], labels[:1], words, labels, 48)
    assert found.gains[0, 0] == 40 * 2.0**960
    labels[3, 0] = 1
    with pytest.raises(ValueError, match="query 3 has 961 labels: give at most 960"):
        graded_histogram(words, labels, words, labels, 48)
    classes = np.zeros(40, int)
    with pytest.raises(ValueError, match="class indices: grades need multi-hot"):
        graded_histogram(words, classes, words, classes, 48)


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


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("k", [1, 30, 500])
@pytest.mark.parametrize("bits", [12, 64, 128, 200])
@pytest.mark.parametrize("queries", [0, 1, 70])
def test_nearest_are_those_of_a_stable_sort(bits, k, queries, threads):
    data = sample(bits, "classes", queries=queries)
    distance, _ = naive(*data)
    order = np.argsort(distance, axis=1, kind="stable")[:, :k]
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    positions, distances = knn(pack(data[0]), pack(data[2]), k=k)
    torch.set_num_threads(threads_before)
    np.testing.assert_array_equal(positions, order)
    np.testing.assert_array_equal(distances, np.take_along_axis(distance, order, axis=1))


@pytest.mark.parametrize("k", [1, 100, 4000])
def test_nearest_of_a_database_of_many_tiles(k):
    rng = np.random.default_rng(0)
    database = rng.integers(2**20, size=(20_011, 1), dtype=np.uint64)  # distances 0 to 20: ties
    queries = database[rng.integers(len(database), size=40)]
    positions, distances = knn(queries, database, k=k)
    distance = np.bitwise_count(queries ^ database.T)
    order = np.argsort(distance, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(positions, order)
    np.testing.assert_array_equal(distances, np.take_along_axis(distance, order, axis=1))


@pytest.mark.parametrize("words", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 7, 8, 9, 64, 259])
def test_least_distance_is_that_of_the_nearest(words, size):
    rng = np.random.default_rng(0)
    query = rng.integers(2**64, size=words, dtype=np.uint64)
    codes = rng.integers(2**64, size=(size, words), dtype=np.uint64)
    for nearest in range(size):  # each place has the nearest once
        these = codes.copy()
        these[nearest] = query
        these[nearest, 0] ^= np.uint64(0b1011)
        assert cpu.least_distance(query, these.reshape(-1), (0,) * words) == 3
    everything = query ^ np.uint64(2**64 - 1)
    farthest = np.tile(everything, (size, 1))
    assert cpu.least_distance(query, farthest.reshape(-1), (0,) * words) == 64 * words


def test_nearest_in_a_memory_mapped_file(tmp_path):
    queries, _, database, _, _ = packed(*sample(48, "classes"))
    np.save(tmp_path / "codes.npy", database)
    mapped = np.load(tmp_path / "codes.npy", mmap_mode="r")
    for found, wanted in zip(knn(queries, mapped, k=9), knn(queries, database, k=9), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("bits", [48, 128])
@pytest.mark.parametrize("k", [1, 30, 500])
def test_torch_finds_the_nearest_that_numba_finds(bits, k, monkeypatch):
    monkeypatch.setattr(gpu, "PAIRS_PER_SEARCH", 70 * 170)  # chunks of 170 items
    queries, _, database, _, _ = packed(*sample(bits, "classes", queries=70))
    tensors = (torch.from_numpy(words.view(np.int64)) for words in (queries, database))
    for found, wanted in zip(gpu.k_nearest(*tensors, k), knn(queries, database, k=k), strict=True):
        np.testing.assert_array_equal(found.numpy(), wanted)


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
    longer = database | (np.arange(len(database)) == 3)[:, None] * np.uint64(2**50)
    with pytest.raises(ValueError, match="row 3 of database words has padding bit 50 set"):
        distance_histogram(queries, query_labels, longer, database_labels, bits)
    with pytest.raises(ValueError, match="words have type int8"):
        distance_histogram(queries.astype(np.int8), query_labels, database, database_labels, bits)
    with pytest.raises(ValueError, match="k is 501"):
        knn(queries, database, k=501)
    with pytest.raises(ValueError, match=r"query words have shape \(7, 1\), database words"):
        knn(queries, pack(np.ones((5, 70))), k=1)
    arguments = (queries, query_labels, database, database_labels, bits)
    with pytest.raises(ValueError, match=r"cutoffs are \[5, 2\]"):
        database_order_histogram(*arguments, cutoffs=[5, 2])


def test_torch_and_numba_keep_their_numbers_of_threads():
    # In a process of its own: only numba's first kernel sets the size of a shared pool.
    program = (
        "import numba, numpy as np, torch; from deephash.hamming import distance_histogram\n"
        "words, labels = np.arange(9, dtype=np.uint64)[:, None], np.arange(9)\n"
        "torch.set_num_threads(1)\n"
        "before = numba.get_num_threads()\n"
        "distance_histogram(words, labels, words, labels, 48)\n"
        "print(torch.get_num_threads(), numba.get_num_threads() - before)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.split() == [b"1", b"0"]


@pytest.mark.parametrize(
    ("kernel", "arguments"),
    [
        (cpu.least_distance, (ONE, MANY, (0,))),
        (cpu._count, (ONE, ONE, MANY, (0,), np.zeros((2, 65), np.int64))),
        (cpu._count_grades, (ONE, ONE, MANY, MANY, (0,), (0,), np.zeros((65, 65), np.int64))),
        (cpu._scan, (ONE[None], MANY, (0,), 0, 8, 1, np.zeros((1, 1), int), np.zeros((1, 1), int))),
    ],
    ids=["least distance", "histogram", "graded histogram", "k nearest"],
)
@pytest.mark.skipif(
    not get_host_cpu_features().get("avx512vpopcntdq"), reason="no 512 bits to count at a time"
)
def test_kernels_are_as_wide_as_the_processor(kernel, arguments):
    compiled = njit(kernel.py_func)
    compiled(*arguments)
    (assembly,) = compiled.inspect_asm().values()
    assert any("zmm" in line for line in assembly.splitlines() if "vpopcnt" in line)
