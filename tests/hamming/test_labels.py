import tracemalloc

import numpy as np
import pytest
import torch

from deephash.hamming.codes import pack
from deephash.hamming.labels import check_labels, label_keys
from deephash.metrics.ranking import evaluate_codes

CASES = {
    "column": (np.array([[1], [0], [2]]), r"shape \(3, 1\): give class indices as \(n,\)"),
    "minus_one": (np.array([[1, -1], [-1, 1], [1, 1]]), "value -1 in row 0.*give labels > 0"),
    "counts": (np.array([[1, 0], [0, 2], [1, 1]]), "value 2 in row 1: multi-hot labels are 0 and"),
    "unlabelled": (np.array([1, -1, 0]), "value -1 in row 1: class indices are .* without a label"),
    "wrapped": (np.array([1, 2**64 - 1, 0], np.uint64), "value 18446744073709551615 in row 1"),
    "floats": (np.array([1.0, 0.0, 1.0]), "type float64: give integers"),
    "cube": (np.zeros((3, 2, 2), int), r"shape \(3, 2, 2\)"),
}


@pytest.mark.parametrize("side", ["query", "database"])
@pytest.mark.parametrize(("labels", "message"), CASES.values(), ids=list(CASES))
def test_labels_that_could_be_mistaken_are_refused(labels, message, side):
    words, good = pack(np.array([[1, 1], [1, -1], [-1, -1]])), np.array([0, 1, 1])
    pair = (labels, good) if side == "query" else (good, labels)
    with pytest.raises(ValueError, match=f"{side} labels have .*{message}"):
        evaluate_codes(words, pair[0], words, pair[1], 2, ks=(), radius=1)


@pytest.mark.parametrize(
    "labels",
    [
        np.array([0, 5], np.uint8),
        np.array([2**63 - 1], np.uint64),
        np.array([[True, False]]),
        torch.tensor([[0, 1], [1, 1]], dtype=torch.uint8),
        np.empty((0, 3), np.int64),
        np.empty(0, np.int32),
    ],
)
def test_class_indices_and_multi_hot_labels_of_any_integer_type_are_taken(labels):
    check_labels(labels, "labels")


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64])
def test_keys_of_multi_hot_labels_are_their_bits_and_take_no_other_memory(dtype):
    labels = (np.random.default_rng(0).random((5000, 81)) < 0.1).astype(dtype)
    tracemalloc.start()
    check_labels(labels, "labels")
    keys = label_keys(labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < labels.size * 0.6  # 81 of 128 bits are used, and packed once as bytes
    for column in (0, 63, 64, 80):
        bits = keys[:, column // 64] >> np.uint64(column % 64) & np.uint64(1)
        np.testing.assert_array_equal(bits, labels[:, column])
