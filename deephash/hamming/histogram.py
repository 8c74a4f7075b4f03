"""Histograms of Hamming distances: what a ranking is, up to the order of ties."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deephash.hamming import cpu, gpu
from deephash.hamming.codes import check_words, pack
from deephash.hamming.words import as_array, as_words

Array = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MOST_LABELS = 960  # of a query: 2^960 times any int64 number of items is within float64


class GradedHistogram(NamedTuple):
    """What `graded_histogram` counts for each query; the grade is the number of shared labels.

    Attributes:
        items: items at each distance, int64 (q, bits + 1).
        relevant: those of grade 1 and above, int64 (q, bits + 1).
        grades: sum of their grades, int64 (q, bits + 1).
        gains: sum of their gains, see `gain_by_grade`; float64 (q, bits + 1), exact below 2^53.
        by_grade: items of each grade, int64 (q, most + 1), where `most` is the most labels that
            a query has: no item shares more.
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

    An item is relevant when it shares a label with the query. Words on a GPU are compared there,
    all others by a numba kernel on the CPU, with the same result. The histograms of two shards
    of a database add up to the histograms of the whole.

    Args:
        query_words: packed codes, (q, ceil(bits / 64)); uint64, or int64 in a tensor.
        query_labels: class indices (q,), or multi-hot (q, c) with any number of labels c.
        database_words: packed codes, (n, ceil(bits / 64)).
        database_labels: class indices (n,) or multi-hot (n, c), as for the queries.
        bits: length of a code.

    Returns:
        items and relevant items, two int64 arrays (q, bits + 1).

    Raises:
        ValueError: words or labels have the wrong shape or type.
    """
    arrays = _checked(query_words, query_labels, database_words, database_labels, bits)
    if isinstance(query_words, Tensor) and query_words.device.type != "cpu":
        items, relevant = gpu.histogram(*_tensors(arrays, query_words.device), bits=bits)
        return items.cpu().numpy(), relevant.cpu().numpy()
    query, query_keys, database, database_keys = arrays
    order, first, end = _grouped(query_keys, database_keys)
    with cpu.as_many_threads_as_torch():
        if query_keys.ndim == 1:
            flat, width = cpu.flat(database[order])
            return cpu.histogram(query, _by_class(query_keys), flat, first, end, width, bits)
        flat, width = cpu.flat(database)
        return cpu.histogram_multi_hot(query, query_keys, flat, database_keys, width, bits)


def graded_histogram(
    query_words: Array | Tensor,
    query_labels: Array | Tensor,
    database_words: Array | Tensor,
    database_labels: Array | Tensor,
    bits: int,
) -> GradedHistogram:
    """`distance_histogram` of multi-hot labels, with grades: the numbers of shared labels.

    One pass over the pairs, on a GPU or a CPU as there. The histograms of two shards of a database
    add up field by field to those of the whole.

    Args:
        query_words: as for `distance_histogram`, and so is `database_words`.
        query_labels: multi-hot, (q, c); a query has at most 960 of the labels.
        database_words: see there.
        database_labels: multi-hot, (n, c).
        bits: length of a code.

    Returns:
        the histograms, see `GradedHistogram`.

    Raises:
        ValueError: words or labels have the wrong shape or type, labels are class indices, or a
            query has so many labels that its gains might overflow.
    """
    arrays = _checked(query_words, query_labels, database_words, database_labels, bits)
    query, query_keys, database, database_keys = arrays
    if query_keys.ndim == 1:
        raise ValueError("labels are class indices: grades need multi-hot labels, (q, c), (n, c)")
    labels = np.bitwise_count(query_keys).sum(axis=1, dtype=np.int64)
    most = int(labels.max(initial=0))
    if most > MOST_LABELS:
        raise ValueError(
            f"query {labels.argmax()} has {most} labels: give at most {MOST_LABELS}, "
            "the gains of more may overflow"
        )
    gain = gain_by_grade(most)
    if isinstance(query_words, Tensor) and query_words.device.type != "cpu":
        tensors = _tensors(arrays, query_words.device)
        found = gpu.graded_histogram(*tensors, bits=bits, gain=torch.from_numpy(gain))
        return GradedHistogram(*(part.numpy() for part in found))
    codes, width = cpu.flat(database)
    keys, key_width = cpu.flat(database_keys)
    with cpu.as_many_threads_as_torch():
        return GradedHistogram(
            *cpu.graded_histogram(query, query_keys, codes, keys, width, key_width, bits, gain)
        )


def gain_by_grade(most: int) -> Floats:
    """The gains 2^grade - 1 of the grades 0 to `most`, float64 (most + 1,)."""
    return np.ldexp(1.0, np.arange(most + 1)) - 1


def database_order_histogram(
    query_words: Array | Tensor,
    query_labels: Array | Tensor,
    database_words: Array | Tensor,
    database_labels: Array | Tensor,
    bits: int,
    *,
    cutoffs: list[int],
) -> tuple[Counts, Counts, Floats, Counts]:
    """`distance_histogram`, and the ranking with ties in database order, as public code has it.

    One pass over the pairs, on the CPU.

    Args:
        query_words: as for `distance_histogram`, and so are the next four.
        query_labels: see there.
        database_words: see there.
        database_labels: see there.
        bits: see there.
        cutoffs: ranks k in ascending order, the last of them the size n of the database.

    Returns:
        items and relevant items (q, bits + 1), as from `distance_histogram`; then for each query
        and cutoff, (q, len(cutoffs)): the sum of the precisions at the ranks of the relevant items
        up to the cutoff (float64), and the number of these items (int64).

    Raises:
        ValueError: words or labels have the wrong shape, or cutoffs do not ascend from 1 to n.
    """
    arrays = _checked(query_words, query_labels, database_words, database_labels, bits)
    ascending = cutoffs == sorted(cutoffs) and cutoffs[0] >= 1
    if not ascending or cutoffs[-1] != len(database_words):
        raise ValueError(
            f"cutoffs are {cutoffs}: give ascending ranks from 1 to the {len(database_words)} "
            "items of the database"
        )
    query, query_keys, database, database_keys = arrays
    grouped = _grouped(query_keys, database_keys)
    flat, width = cpu.flat(database)
    with cpu.as_many_threads_as_torch():
        return cpu.database_order(
            query, query_keys, flat, database_keys, *grouped, width, bits, np.array(cutoffs)
        )


def _checked(
    query_words: Array | Tensor,
    query_labels: Array | Tensor,
    database_words: Array | Tensor,
    database_labels: Array | Tensor,
    bits: int,
) -> tuple[Array, Array, Array, Array]:
    """Query words and label keys, database words and label keys, as contiguous arrays."""
    sides = [
        ("query", as_words(query_words), as_array(query_labels)),
        ("database", as_words(database_words), as_array(database_labels)),
    ]
    for name, words, labels in sides:
        check_words(words, bits, f"{name} words")
        if labels.ndim not in (1, 2) or len(labels) != len(words) or labels.dtype.kind not in "iub":
            raise ValueError(
                f"{name} labels have shape {labels.shape} and type {labels.dtype}: give integers, "
                f"class indices ({len(words)},) or multi-hot ({len(words)}, c)"
            )
    (_, query, query_label), (_, database, database_label) = sides
    if query_label.shape[1:] != database_label.shape[1:]:
        raise ValueError(
            f"query labels have shape {query_label.shape} and database labels "
            f"{database_label.shape}: give both as class indices or both as multi-hot of one width"
        )
    return query, _label_keys(query_label), database, _label_keys(database_label)


def _tensors(arrays: tuple[Array, ...], device: torch.device) -> list[Tensor]:
    """Words and keys on a device, as int64: torch does little with uint64."""
    return [torch.from_numpy(array.view(np.int64)).to(device) for array in arrays]


def _label_keys(labels: Array) -> Array:
    """Class indices as int64 (n,); multi-hot labels packed into uint64 words (n, words)."""
    if labels.ndim == 1:
        return labels.astype(np.int64)
    return pack(np.where(labels != 0, 1, -1))


def _grouped(query_keys: Array, database_keys: Array) -> tuple[Counts, Counts, Counts]:
    """Positions of the items class by class, and where each query's class begins and ends in them.

    Empty for multi-hot labels.
    """
    if query_keys.ndim > 1:
        none = np.empty(0, np.int64)
        return none, none, none
    order = _by_class(database_keys)
    ascending = database_keys[order]
    first = np.searchsorted(ascending, query_keys, side="left")
    return order, first, np.searchsorted(ascending, query_keys, side="right")


def _by_class(keys: Array) -> Counts:
    """Positions in ascending order of class indices, stable."""
    short = keys.astype(np.int16)  # numpy sorts these by radix, in a fraction of the time
    return np.argsort(short if np.array_equal(short, keys) else keys, kind="stable")
