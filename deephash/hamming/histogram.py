"""Histograms of Hamming distances, which determine a ranking up to the order of ties."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deephash.hamming import cpu, gpu
from deephash.hamming.codes import Array, as_array, as_int, as_words, check_words
from deephash.hamming.labels import check_labels, label_keys

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MAX_LABELS = 960  # per query: 2^960 times any int64 number of items fits into a float64


class GradedHistogram(NamedTuple):
    """Histograms for each query; the grade of an item is the number of labels it shares with it.

    Attributes:
        items: items at each distance, int64 (q, bits + 1).
        relevant: items of grade 1 and above at each distance, int64 (q, bits + 1).
        grades: sum of the grades at each distance, int64 (q, bits + 1).
        gains: sum of the gains 2^grade - 1 at each distance, float64 (q, bits + 1), exact below
            2^53.
        by_grade: items of each grade, int64 (q, max_grade + 1), where `max_grade` is the largest
            number of labels of a query.
    """

    items: Counts
    relevant: Counts
    grades: Counts
    gains: Floats
    by_grade: Counts


def distance_histogram(
    query_words: Array | Tensor,
    query_labels: Array | Tensor,
    database_words: Array | Tensor,
    database_labels: Array | Tensor,
    bits: int,
) -> tuple[Counts, Counts]:
    """Count, for each query, the items and the relevant items at each Hamming distance.

    An item is relevant if it shares a label with the query. Queries on a GPU are compared there,
    otherwise by a numba kernel on the CPU, with the same result. The histograms of two shards of a
    database add up to the histograms of the whole.

    Args:
        query_words: packed codes, (q, ceil(bits / 64)); uint64, or int64 in a tensor.
        query_labels: class indices (q,), or multi-hot (q, c) with any number of labels c.
        database_words: packed codes, (n, ceil(bits / 64)); uint64, or int64 in a tensor.
        database_labels: class indices (n,), or multi-hot (n, c), of the same kind as the queries'.
        bits: length of a code.

    Returns:
        items and relevant items, two int64 arrays (q, bits + 1).

    Raises:
        ValueError: words or labels have the wrong shape, type or values.

    Example:
        >>> from deephash.hamming.codes import pack
        >>> database, labels = pack(np.array([[1, 1], [1, -1], [-1, -1]])), np.array([0, 0, 1])
        >>> items, relevant = distance_histogram(database[:1], labels[:1], database, labels, bits=2)
        >>> items, relevant  # one item at each of the distances 0, 1, 2; the last is not relevant
        (array([[1, 1, 1]]), array([[1, 1, 0]]))
    """
    bits = as_int(bits, "bits")
    arrays = _check_arguments(query_words, query_labels, database_words, database_labels, bits)
    if isinstance(query_words, Tensor) and query_words.device.type != "cpu":
        items, relevant = gpu.histogram(*_to_tensors(arrays, query_words.device), bits=bits)
        return items.cpu().numpy(), relevant.cpu().numpy()
    query, query_keys, database, database_keys = arrays
    query = cpu.read_only(query)
    order, first, end = _class_ranges(query_keys, database_keys)
    with cpu.use_torch_thread_count():
        if query_keys.ndim == 1:
            query_order = _argsort_classes(query_keys)
            flat, width = cpu.flatten_words(database[order])
            return cpu.histogram(query, query_order, flat, first, end, width, bits)
        flat, width = cpu.flatten_words(database)
        return cpu.histogram_multi_hot(query, query_keys, flat, database_keys, width, bits)


def graded_histogram(
    query_words: Array | Tensor,
    query_labels: Array | Tensor,
    database_words: Array | Tensor,
    database_labels: Array | Tensor,
    bits: int,
) -> GradedHistogram:
    """Count items by Hamming distance and by grade, the number of labels shared with the query.

    Takes one pass over the pairs. Queries on a GPU are compared there, otherwise by a numba kernel
    on the CPU. The histograms of two shards of a database add up, field by field, to those of the
    whole.

    Args:
        query_words: packed codes, (q, ceil(bits / 64)); uint64, or int64 in a tensor.
        query_labels: multi-hot, (q, c), with at most 960 labels set per query.
        database_words: packed codes, (n, ceil(bits / 64)); uint64, or int64 in a tensor.
        database_labels: multi-hot, (n, c).
        bits: length of a code.

    Returns:
        the histograms of all queries.

    Raises:
        ValueError: words or labels have the wrong shape or type, labels are class indices, or a
            query has so many labels that its gains could overflow.

    Example:
        >>> from deephash.hamming.codes import pack
        >>> words = pack(np.array([[1, 1], [1, -1], [-1, -1]]))
        >>> labels = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1]])
        >>> histogram = graded_histogram(words[:1], labels[:1], words, labels, bits=2)
        >>> histogram.grades, histogram.gains  # the first item has labels 0 and 1
        (array([[2, 1, 2]]), array([[3., 1., 3.]]))
        >>> histogram.by_grade
        array([[0, 1, 2]])
    """
    bits = as_int(bits, "bits")
    arrays = _check_arguments(query_words, query_labels, database_words, database_labels, bits)
    query, query_keys, database, database_keys = arrays
    if query_keys.ndim == 1:
        raise ValueError("labels are class indices: grades need multi-hot labels, (q, c), (n, c)")
    num_labels = np.bitwise_count(query_keys).sum(axis=1, dtype=np.int64)
    max_grade = int(num_labels.max(initial=0))
    if max_grade > MAX_LABELS:
        raise ValueError(
            f"query {num_labels.argmax()} has {max_grade} labels: give at most {MAX_LABELS}, "
            "the gains of more could overflow"
        )
    gain = gain_by_grade(max_grade)
    if isinstance(query_words, Tensor) and query_words.device.type != "cpu":
        tensors = _to_tensors(arrays, query_words.device)
        counts = gpu.graded_histogram(*tensors, bits=bits, gain=torch.from_numpy(gain))
        return GradedHistogram(*(count.numpy() for count in counts))
    query = cpu.read_only(query)
    flat, width = cpu.flatten_words(database)
    flat_keys, key_width = cpu.flatten_words(database_keys)
    with cpu.use_torch_thread_count():
        return GradedHistogram(
            *cpu.graded_histogram(query, query_keys, flat, flat_keys, width, key_width, bits, gain)
        )


def gain_by_grade(max_grade: int) -> Floats:
    """The gains 2^grade - 1 of the grades 0 to `max_grade`, float64 (max_grade + 1,).

    Example:
        >>> gain_by_grade(3)
        array([0., 1., 3., 7.])
    """
    return np.ldexp(1.0, np.arange(max_grade + 1)) - 1


def database_order_histogram(
    query_words: Array | Tensor,
    query_labels: Array | Tensor,
    database_words: Array | Tensor,
    database_labels: Array | Tensor,
    bits: int,
    *,
    cutoffs: list[int],
) -> tuple[Counts, Counts, Floats, Counts]:
    """Compute `distance_histogram`, and precisions of the ranking with ties in database order.

    Public code for hashing papers ranks ties in this order. Takes one pass over the pairs, on the
    CPU.

    Args:
        query_words: packed codes, (q, ceil(bits / 64)); uint64, or int64 in a tensor.
        query_labels: class indices (q,), or multi-hot (q, c).
        database_words: packed codes, (n, ceil(bits / 64)); uint64, or int64 in a tensor.
        database_labels: class indices (n,), or multi-hot (n, c), of the same kind as the queries'.
        bits: length of a code.
        cutoffs: ranks k in ascending order, the last of them the size n of the database.

    Returns:
        four arrays. Items and relevant items, int64 (q, bits + 1), as from `distance_histogram`.
        Then, for each query and cutoff, (q, len(cutoffs)): the sum of the precisions at the ranks
        of the relevant items up to the cutoff, float64, and the number of these items, int64.

    Raises:
        ValueError: words or labels have the wrong shape or type, or cutoffs do not ascend from at
            least 1 to n.
    """
    bits = as_int(bits, "bits")
    arrays = _check_arguments(query_words, query_labels, database_words, database_labels, bits)
    ascending = cutoffs == sorted(cutoffs) and cutoffs[0] >= 1
    if not ascending or cutoffs[-1] != len(database_words):
        raise ValueError(
            f"cutoffs are {cutoffs}: give ascending ranks, the last of them the "
            f"{len(database_words)} items of the database"
        )
    query, query_keys, database, database_keys = arrays
    query = cpu.read_only(query)
    ranges = _class_ranges(query_keys, database_keys)
    flat, width = cpu.flatten_words(database)
    with cpu.use_torch_thread_count():
        return cpu.database_order(
            query, query_keys, flat, database_keys, *ranges, width, bits, np.array(cutoffs)
        )


def _check_arguments(
    query_words: Array | Tensor,
    query_labels: Array | Tensor,
    database_words: Array | Tensor,
    database_labels: Array | Tensor,
    bits: int,
) -> tuple[Array, Array, Array, Array]:
    """Check words and labels; return query words and label keys, database words and label keys."""
    sides = [
        ("query", as_words(query_words), as_array(query_labels)),
        ("database", as_words(database_words), as_array(database_labels)),
    ]
    for name, words, labels in sides:
        check_words(words, bits, f"{name} words")
        if len(labels) != len(words):
            raise ValueError(f"there are {len(labels)} {name} labels for {len(words)} codes")
        check_labels(labels, f"{name} labels")
    (_, query, query_label), (_, database, database_label) = sides
    if query_label.shape[1:] != database_label.shape[1:]:
        raise ValueError(
            f"query labels have shape {query_label.shape} and database labels "
            f"{database_label.shape}: give both as class indices or both as multi-hot of one width"
        )
    return query, label_keys(query_label), database, label_keys(database_label)


def _to_tensors(arrays: tuple[Array, ...], device: torch.device) -> list[Tensor]:
    """Move words and label keys to a device as int64, since torch has few operations on uint64."""
    return [torch.from_numpy(array.view(np.int64)).to(device) for array in arrays]


def _class_ranges(query_keys: Array, database_keys: Array) -> tuple[Counts, Counts, Counts]:
    """Sort the items by class and find the range of each query's class in that order.

    Returns:
        positions of the items in class order (n,), and for each query the first position of its
        class in that order and the position after its last, (q,) each. Empty for multi-hot labels.
    """
    if query_keys.ndim > 1:
        empty = np.empty(0, np.int64)
        return empty, empty, empty
    order = _argsort_classes(database_keys)
    ascending = database_keys[order]
    first = np.searchsorted(ascending, query_keys, side="left")
    return order, first, np.searchsorted(ascending, query_keys, side="right")


def _argsort_classes(keys: Array) -> Counts:
    """Sort class indices stably; return the positions in ascending order."""
    short = keys.astype(np.int16)  # numpy sorts int16 by radix, in a fraction of the time
    return np.argsort(short if np.array_equal(short, keys) else keys, kind="stable")
