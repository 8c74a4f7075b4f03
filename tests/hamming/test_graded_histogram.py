import numpy as np
import pytest
import torch
from code_samples import GRADED_CASES, assert_same_histograms, graded_sample, pack_sample

from deephash.hamming import (
    GradedHistogram,
    distance_histogram,
    gain_by_grade,
    gpu,
    graded_histogram,
    histogram,
)


def naive_graded_histogram(queries, query_labels, database, database_labels):
    """The five graded histograms as lists of Python integers, from the definitions."""
    (q, bits), max_grade = queries.shape, max(map(sum, query_labels.tolist()))
    items, relevant, grades, gains = ([[0] * (bits + 1) for _ in range(q)] for _ in range(4))
    by_grade = [[0] * (max_grade + 1) for _ in range(q)]
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


@pytest.mark.parametrize("size", [1, 127, 128, 501])
@pytest.mark.parametrize(("bits", "labels", "density"), GRADED_CASES)
def test_graded_histogram_equals_naive_count(bits, labels, density, size):
    data = graded_sample(bits, labels, density, items=size)
    counts = graded_histogram(*pack_sample(*data))
    assert_same_histograms(counts, naive_graded_histogram(*data))
    assert counts.relevant[0].sum() == counts.gains[0].sum() == 0
    binary = distance_histogram(*pack_sample(*data))
    np.testing.assert_array_equal((counts.items, counts.relevant), binary)


def test_one_case_has_grades_above_the_bits_of_an_integer():
    by_grade = graded_histogram(*pack_sample(*graded_sample(*GRADED_CASES[-1]))).by_grade
    assert by_grade[:, 64:].any()


def test_equal_items_are_counted_in_one_cell():
    words, labels = np.zeros((70_000, 1), np.uint64), np.ones((70_000, 3), int)
    counts = graded_histogram(words[:2], labels[:2], words, labels, 48)
    for part, per_item in zip(counts[:4], (1, 1, 3, 7), strict=True):
        np.testing.assert_array_equal(part[:, 0], 70_000 * per_item)
        assert not part[:, 1:].any()
    np.testing.assert_array_equal(counts.by_grade, [[0, 0, 0, 70_000]] * 2)


@pytest.mark.parametrize(("bits", "labels", "density"), GRADED_CASES)
def test_torch_kernel_equals_numba_kernel(bits, labels, density, monkeypatch):
    arguments = pack_sample(*graded_sample(bits, labels, density))
    expected = graded_histogram(*arguments)
    max_grade = expected.by_grade.shape[1] - 1
    cells = max(500, (bits + 1) * (max_grade + 1))
    monkeypatch.setattr(gpu, "PAIRS_PER_CHUNK", 3 * cells)  # three queries at a time
    keys = (torch.from_numpy(a.view(np.int64)) for a in histogram._check_arguments(*arguments))
    gain = torch.from_numpy(gain_by_grade(max_grade))
    counts = gpu.graded_histogram(*keys, bits=bits, gain=gain)
    assert_same_histograms(GradedHistogram(*(part.numpy() for part in counts)), expected)


@pytest.mark.parametrize(("bits", "labels", "density"), GRADED_CASES)
def test_histograms_of_shards_add_up(bits, labels, density):
    queries, query_labels, database, database_labels = graded_sample(bits, labels, density)
    whole = graded_histogram(*pack_sample(queries, query_labels, database, database_labels))
    shards = [
        graded_histogram(*pack_sample(queries, query_labels, database[part], database_labels[part]))
        for part in (slice(0, 123), slice(123, 124), slice(124, None))
    ]
    assert_same_histograms(whole, [sum(parts) for parts in zip(*shards, strict=True)])


def test_gains_of_the_maximum_number_of_labels_are_finite():
    words, labels = np.zeros((40, 1), np.uint64), np.ones((40, 961), int)
    labels[:, 0] = 0
    counts = graded_histogram(words[:1], labels[:1], words, labels, 48)
    assert counts.gains[0, 0] == 40 * 2.0**960


def test_too_many_labels_and_class_indices_are_refused():
    words, labels = np.zeros((40, 1), np.uint64), np.ones((40, 961), int)
    labels[:, 0] = np.arange(40) == 3
    with pytest.raises(ValueError, match="query 3 has 961 labels: give at most 960"):
        graded_histogram(words, labels, words, labels, 48)
    classes = np.zeros(40, int)
    with pytest.raises(ValueError, match="class indices: grades need multi-hot"):
        graded_histogram(words, classes, words, classes, 48)
