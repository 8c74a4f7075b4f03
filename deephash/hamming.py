"""Hamming distances between packed codes: histograms, database order, nearest items.

A ranking by Hamming distance is known, up to the order of ties, from two small histograms per
query. They cost one popcount a pair, add up over shards of the database, and hold all that
`deephash.metrics` needs. Nothing here builds a matrix of queries x items.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch
from numba import njit, prange, types
from numba.extending import intrinsic
from torch import Tensor

from deephash.codes import check_words, pack

Array = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]

PAIRS_PER_CHUNK = 2**24  # bounds the memory of the torch version to about 1 GB


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
        query, query_keys, database, database_keys = (
            torch.from_numpy(array.view(np.int64)).to(query_words.device) for array in arrays
        )
        counts = _histogram_torch(query, query_keys, database, database_keys, bits).cpu().numpy()
    else:
        with _as_many_threads_as_torch():
            counts = _histogram_numba(*_one_word_flat(*arrays), bits)
    return counts.sum(axis=2), counts[:, :, 1].copy()


def database_order_histogram(
    query_words: Array | Tensor,
    query_labels: Array | Tensor,
    database_words: Array | Tensor,
    database_labels: Array | Tensor,
    bits: int,
    *,
    cutoffs: list[int],
) -> tuple[Counts, Counts, npt.NDArray[np.float64], Counts]:
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
    grouped = _grouped(arrays[1], arrays[3])
    with _as_many_threads_as_torch():
        return _database_order_numba(*_one_word_flat(*arrays), *grouped, bits, np.array(cutoffs))


def nearest(
    query_words: npt.NDArray[np.uint64], database_words: npt.NDArray[np.uint64], k: int
) -> tuple[Counts, Counts]:
    """The k nearest items of a few queries, ties in database order, by comparing them all.

    Args:
        query_words: packed codes, uint64 (q, words).
        database_words: packed codes, uint64 (n, words).
        k: how many items a query, at most n.

    Returns:
        positions in the database and Hamming distances, two int64 arrays (q, k).

    Raises:
        ValueError: k is not between 1 and n.
    """
    if not 1 <= k <= len(database_words):
        raise ValueError(f"k is {k}: give 1 to the {len(database_words)} items of the database")
    indices = np.empty((len(query_words), k), np.int64)
    distances = np.empty_like(indices)
    for row, query in enumerate(query_words):
        distance = np.bitwise_count(query ^ database_words).sum(axis=1, dtype=np.int64)
        indices[row] = np.argsort(distance, kind="stable")[:k]
        distances[row] = distance[indices[row]]
    return indices, distances


def _checked(
    query_words: Array | Tensor,
    query_labels: Array | Tensor,
    database_words: Array | Tensor,
    database_labels: Array | Tensor,
    bits: int,
) -> tuple[Array, Array, Array, Array]:
    """Query words and label keys, database words and label keys, as contiguous arrays."""
    sides = [
        ("query", _as_words(query_words), _as_array(query_labels)),
        ("database", _as_words(database_words), _as_array(database_labels)),
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


def _as_array(values: Array | Tensor) -> Array:
    array = values.cpu().numpy() if isinstance(values, Tensor) else values
    return np.ascontiguousarray(array)


def _as_words(values: Array | Tensor) -> npt.NDArray[np.uint64]:
    array = _as_array(values)
    if array.dtype not in (np.uint64, np.int64):
        raise ValueError(f"words have type {array.dtype}: give uint64 from deephash.codes.pack")
    return array.view(np.uint64)


def _label_keys(labels: Array) -> Array:
    """Class indices as int64 (n,); multi-hot labels packed into uint64 words (n, words)."""
    if labels.ndim == 1:
        return labels.astype(np.int64)
    return pack(np.where(labels != 0, 1, -1))


def _one_word_flat(
    query: Array, query_keys: Array, database: Array, database_keys: Array
) -> tuple[Array, Array, Array, Array]:
    """Codes of up to 64 bits lose their word axis: the kernels have a faster form for them."""
    if query.shape[1] > 1:
        return query, query_keys, database, database_keys
    return query[:, 0], query_keys, database[:, 0], database_keys


@contextmanager
def _as_many_threads_as_torch() -> Iterator[None]:
    """Numba on torch's number of threads, which it must not change.

    Both may share one OpenMP pool: numba's first kernel sets its size, torch would go on with
    another number of threads, and its sums depend on that number.
    """
    threads = torch.get_num_threads()
    at_most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # set at import
    numba.set_num_threads(min(threads, at_most))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@intrinsic
def _popcount(typing_context, word):  # type: ignore[no-untyped-def]
    """Number of set bits, the processor's own instruction: numba has no function for it."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@njit(nogil=True, cache=True)
def _distance(a, i, b, j):  # type: ignore[no-untyped-def]
    if a.ndim == 1:  # codes of one word: numba compiles only the branch that fits the array
        return _popcount(a[i] ^ b[j])
    distance = np.uint64(0)
    for word in range(a.shape[1]):
        distance += _popcount(a[i, word] ^ b[j, word])
    return distance


@njit(nogil=True, cache=True)
def _share_label(a, i, b, j):  # type: ignore[no-untyped-def]
    if a.ndim == 1:  # class indices
        return np.uint64(a[i] == b[j])
    shared = np.uint64(0)
    for word in range(a.shape[1]):
        shared |= a[i, word] & b[j, word]
    return np.uint64(shared != 0)


@njit(parallel=True, nogil=True, cache=True)
def _histogram_numba(  # type: ignore[no-untyped-def]
    query, query_keys, database, database_keys, bits
):
    """Items by query, distance and relevance, (q, bits + 1, 2): one increment a pair."""
    counts = np.zeros((len(query), bits + 1, 2), np.int64)
    for i in prange(len(query)):
        bins = np.zeros(2 * (bits + 1), np.int32)  # stays in the first-level cache
        for j in range(len(database)):
            bins[
                2 * _distance(query, i, database, j) + _share_label(query_keys, i, database_keys, j)
            ] += 1
        counts[i] = bins.reshape(bits + 1, 2)
    return counts


def _grouped(query_keys: Array, database_keys: Array) -> tuple[Counts, Counts, Counts]:
    """Positions of the items class by class, and where each query's class begins and ends in them.

    Empty for multi-hot labels.
    """
    if query_keys.ndim > 1:
        none = np.empty(0, np.int64)
        return none, none, none
    order = np.argsort(database_keys, kind="stable")
    ascending = database_keys[order]
    first = np.searchsorted(ascending, query_keys, side="left")
    return order, first, np.searchsorted(ascending, query_keys, side="right")


@njit(parallel=True, nogil=True, cache=True)
def _database_order_numba(  # type: ignore[no-untyped-def]
    query, query_keys, database, database_keys, order, first, end, bits, cutoffs
):
    """A pass over all items finds each one's place among its equals, one over the relevant ranks.

    The rank of an item is the number of nearer items, known when all are counted, plus its place.
    """
    q, n, last = len(query), len(database), len(cutoffs) - 1
    items = np.zeros((q, bits + 1), np.int64)
    relevant = np.zeros((q, bits + 1), np.int64)
    sums = np.zeros((q, last + 1), np.float64)
    hits = np.zeros((q, last + 1), np.int64)
    for i in prange(q):
        distance = np.empty(n, np.uint16)
        for j in range(n):
            distance[j] = _distance(query, i, database, j)
        seen = np.zeros(bits + 1, np.int32)
        place = np.empty(n, np.int32)
        for j in range(n):
            place[j] = seen[distance[j]]
            seen[distance[j]] += 1
        if query_keys.ndim == 1:
            mine = order[first[i] : end[i]]
        else:
            shared = np.empty(n, np.bool_)
            for j in range(n):
                shared[j] = _share_label(query_keys, i, database_keys, j) != 0
            mine = np.flatnonzero(shared)
        for j in mine:
            relevant[i, distance[j]] += 1
        items[i] = seen
        nearer = np.cumsum(items[i]) - items[i]
        found = np.cumsum(relevant[i]) - relevant[i]
        total = 0.0
        for j in mine:
            d = distance[j]
            found[d] += 1
            rank = nearer[d] + place[j] + 1
            precision = found[d] / rank
            total += precision
            for c in range(last):
                if rank <= cutoffs[c]:
                    sums[i, c] += precision
                    hits[i, c] += 1
        sums[i, last], hits[i, last] = total, len(mine)
    return items, relevant, sums, hits


def _histogram_torch(
    query: Tensor, query_keys: Tensor, database: Tensor, database_keys: Tensor, bits: int
) -> Tensor:
    """What `_histogram_numba` counts, in whole numbers on any device, some queries at a time."""
    bins = 2 * (bits + 1)
    rows = max(1, PAIRS_PER_CHUNK // max(1, len(database)))
    chunks = []
    for words, keys in zip(query.split(rows), query_keys.split(rows), strict=True):
        distance = sum(
            _popcount_torch(a[:, None] ^ b) for a, b in zip(words.T, database.T, strict=True)
        )
        if keys.ndim == 1:
            shared = keys[:, None] == database_keys
        else:
            pairs = zip(keys.T, database_keys.T, strict=True)
            shared = torch.stack([(a[:, None] & b) != 0 for a, b in pairs]).any(dim=0)
        first_bin = torch.arange(len(words), device=words.device)[:, None] * bins
        flat = (first_bin + 2 * distance + shared).flatten()
        chunks.append(torch.bincount(flat, minlength=len(words) * bins))
    return torch.cat(chunks).view(len(query), bits + 1, 2)


def _popcount_torch(words: Tensor) -> Tensor:
    """Set bits of int64 words, by sums over ever wider fields: torch has no popcount."""
    pairs = words - (words >> 1 & 0x5555555555555555)
    nibbles = (pairs & 0x3333333333333333) + (pairs >> 2 & 0x3333333333333333)
    octets = nibbles + (nibbles >> 4) & 0x0F0F0F0F0F0F0F0F
    return octets * 0x0101010101010101 >> 56
