"""Hamming kernels in torch for a GPU: a chunk of queries at a time, in integer arithmetic."""

from collections.abc import Callable

import torch
from torch import Tensor

PAIRS_PER_CHUNK = 2**24  # pairs counted at a time; bounds the memory to about 1 GB
PAIRS_PER_SEARCH = 2**27  # pairs compared at a time in k-NN, 16 bits each; bounds the memory too
# A sort key of the k-NN search holds the query from bit 52, the distance from bit 36, the position.
POSITION_BITS, ROW_SHIFT = 36, 52
MAX_WIDTH = 2 ** (ROW_SHIFT - POSITION_BITS) - 64  # of a code, in whole words


def histogram(
    query: Tensor, query_keys: Tensor, database: Tensor, database_keys: Tensor, *, bits: int
) -> tuple[Tensor, Tensor]:
    """Count all items and the relevant items of each query at each distance.

    Args:
        query: packed codes, int64 (q, words).
        query_keys: class indices, int64 (q,), or packed multi-hot labels, int64 (q, label words).
        database: packed codes, int64 (n, words).
        database_keys: class indices, int64 (n,), or packed multi-hot labels, int64 (n, label
            words).
        bits: length of a code.

    Returns:
        items and relevant items, two int64 tensors (q, bits + 1).
    """
    bins = 2 * (bits + 1)
    rows = max(1, PAIRS_PER_CHUNK // max(1, len(database)))
    chunks = []
    for words, keys in zip(query.split(rows), query_keys.split(rows), strict=True):
        distance = _distances(words, database)
        if keys.ndim == 1:
            shared = keys[:, None] == database_keys
        else:
            pairs = zip(keys.T, database_keys.T, strict=True)
            shared = torch.stack([(a[:, None] & b) != 0 for a, b in pairs]).any(dim=0)
        chunks.append(_count_values(2 * distance + shared, bins))
    counts = torch.cat(chunks).view(len(query), bits + 1, 2)
    return counts.sum(dim=2), counts[:, :, 1]


def graded_histogram(
    query: Tensor,
    query_keys: Tensor,
    database: Tensor,
    database_keys: Tensor,
    *,
    bits: int,
    gain: Tensor,
) -> tuple[Tensor, ...]:
    """Count the items of each query by distance and by grade, the number of shared labels.

    Args:
        query: packed codes, int64 (q, words).
        query_keys: packed multi-hot labels, int64 (q, label words).
        database: packed codes, int64 (n, words).
        database_keys: packed multi-hot labels, int64 (n, label words).
        bits: length of a code.
        gain: gain of each grade, float64 (max_grade + 1,), on the CPU: the weighted sums are
            computed there because Apple's GPUs have no float64.

    Returns:
        the five fields of `deephash.hamming.GradedHistogram`, on the CPU.
    """
    bins = (bits + 1) * len(gain)
    rows = max(1, PAIRS_PER_CHUNK // max(bins, len(database)))
    grade = torch.arange(len(gain))
    chunks = []
    for words, keys in zip(query.split(rows), query_keys.split(rows), strict=True):
        cells = _distances(words, database) * len(gain) + _grades(keys, database_keys)
        counts = _count_values(cells, bins).view(len(words), bits + 1, len(gain)).cpu()
        relevant, grades, gains = (
            (counts * weight).sum(dim=2) for weight in (grade > 0, grade, gain)
        )
        chunks.append((counts.sum(dim=2), relevant, grades, gains, counts.sum(dim=1)))
    return tuple(torch.cat(parts) for parts in zip(*chunks, strict=True))


def k_nearest(query: Tensor, database: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Find the k nearest items of each query, nearest first, ties in database order.

    The number of equal bits less the number of different bits, the similarity, is a product of
    matrices of -1 and +1. The database is searched in chunks. Of each chunk, only the items that
    are more similar than the k-th best so far are sorted: at a tie the earlier items stay.

    Args:
        query: packed codes, int64 (q, words).
        database: packed codes, int64 (n, words).
        k: number of items to find for each query, 1 to n.

    Returns:
        positions and distances, int64 (q, k) each.

    Raises:
        ValueError: codes have more than 65,472 bits.
    """
    width = 64 * query.shape[1]
    if width > MAX_WIDTH:
        raise ValueError(f"codes have {width} bits: a GPU searches codes of up to {MAX_WIDTH}")
    columns = max(k, PAIRS_PER_SEARCH // min(max(len(query), 64), 1024))
    chunks = []
    for words in query.split(max(1, PAIRS_PER_SEARCH // columns)):
        signs, row_keys = _signs(words), torch.arange(len(words), device=words.device) << ROW_SHIFT
        nearest, bound = words.new_empty(0), None
        for start in range(0, len(database), columns):
            similarity = signs @ _signs(database[start : start + columns]).T
            if bound is None:
                bound = similarity.topk(k).values[:, -1] - 1
            row, column = (similarity > bound[:, None]).nonzero(as_tuple=True)
            distance = (width - similarity[row, column].long()) // 2
            candidates = row_keys[row] | distance << POSITION_BITS | start + column
            keys = torch.cat([nearest.flatten(), candidates]).sort().values
            first = torch.searchsorted(keys, row_keys)
            nearest = keys[first[:, None] + torch.arange(k, device=keys.device)]
            bound = width - 2 * _distance_of_key(nearest[:, -1])
        chunks.append(nearest)
    keys = torch.cat(chunks)
    return keys & (1 << POSITION_BITS) - 1, _distance_of_key(keys)


def _signs(words: Tensor) -> Tensor:
    """Bits as -1 and +1, (n, 64 * words), in a type that holds the sums of a row exactly."""
    dtype = torch.float16 if words.shape[1] <= 2048 // 64 else torch.float32
    octets = words.contiguous().view(torch.uint8)
    bits = octets[:, :, None] >> torch.arange(8, dtype=torch.uint8, device=words.device) & 1
    return 2 * bits.flatten(1).to(dtype) - 1


def _distance_of_key(keys: Tensor) -> Tensor:
    """Extract the distances from sort keys."""
    return keys >> POSITION_BITS & (1 << ROW_SHIFT - POSITION_BITS) - 1


def _count_values(values: Tensor, bins: int) -> Tensor:
    """Count how often each row holds each integer from 0 to bins - 1: int64 (rows, bins)."""
    first_bin = torch.arange(len(values), device=values.device)[:, None] * bins
    counts = torch.bincount((first_bin + values).flatten(), minlength=len(values) * bins)
    return counts.view(len(values), bins)


def _distances(query: Tensor, database: Tensor) -> Tensor:
    """Hamming distances of all pairs of codes, int64 (q, n)."""
    return _count_bits(torch.bitwise_xor, query, database)


def _grades(query_keys: Tensor, database_keys: Tensor) -> Tensor:
    """Numbers of shared labels of all pairs of multi-hot labels, int64 (q, n)."""
    return _count_bits(torch.bitwise_and, query_keys, database_keys)


def _count_bits(
    combine: Callable[[Tensor, Tensor], Tensor], query: Tensor, database: Tensor
) -> Tensor:
    """Count the set bits of the combined words of each pair, int64 (q, n)."""
    count = torch.zeros(len(query), len(database), dtype=torch.int64, device=query.device)
    for a, b in zip(query.T, database.T, strict=True):
        count += _popcount(combine(a[:, None], b))
    return count


def _popcount(words: Tensor) -> Tensor:
    """Count the set bits of int64 words by sums over ever wider fields: torch has no popcount."""
    pairs = words - (words >> 1 & 0x5555555555555555)
    nibbles = (pairs & 0x3333333333333333) + (pairs >> 2 & 0x3333333333333333)
    octets = nibbles + (nibbles >> 4) & 0x0F0F0F0F0F0F0F0F
    return octets * 0x0101010101010101 >> 56
